"""Top-level keys that nats-server knows: where no module has them they are refused by name, never ignored."""

from __future__ import annotations

from typing import Final

TOP_LEVEL: Final = frozenset(
    (
        *("client_advertise", "trace_verbose", "trace_headers", "logfile_size_limit", "log_size_limit"),
        *("logfile_max_num", "log_max_num", "syslog", "remote_syslog", "prof_port", "prof_block_rate"),
        *("max_subscriptions", "max_subs", "max_sub_tokens", "max_subscription_tokens"),
        *("max_traced_msg_len", "max_closed_clients", "write_timeout", "lame_duck_duration"),
        *("lame_duck_grace_period", "tls", "allow_non_tls", "accounts", "mappings", "maps", "no_auth_user"),
        *("system_account", "system", "no_system_account", "no_system", "no_sys_acc", "no_header_support"),
        *("default_js_domain", "feature_flags", "connect_error_reports"),
        *("reconnect_error_reports", "disable_sublist_cache", "no_sublist_cache", "no_fast_producer_stall"),
        *("proxy_protocol", "proxies", "ocsp", "ocsp_cache", "resolver_tls", "resolver_pinned_accounts"),
        *("default_sentinel",),
        *("websocket", "ws", "leaf", "leafnodes", "gateway", "mqtt", "default_permissions"),
    )
)
