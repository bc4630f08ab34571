"""Keys that nats-server knows and this version does not have: refused by name, so that nothing is silently ignored."""

from __future__ import annotations

from typing import Final

TOP_LEVEL: Final = frozenset(
    (
        *("client_advertise", "trace_verbose", "trace_headers", "logfile_size_limit", "log_size_limit"),
        *("logfile_max_num", "log_max_num", "syslog", "remote_syslog", "prof_port", "prof_block_rate"),
        *("https", "https_port", "max_subscriptions", "max_subs", "max_sub_tokens", "max_subscription_tokens"),
        *("max_traced_msg_len", "max_closed_clients", "write_timeout", "lame_duck_duration"),
        *("lame_duck_grace_period", "tls", "allow_non_tls", "accounts", "mappings", "maps", "no_auth_user"),
        *("system_account", "system", "no_system_account", "no_system", "no_sys_acc", "no_header_support"),
        *("default_js_domain", "server_tags", "server_metadata", "feature_flags", "connect_error_reports"),
        *("reconnect_error_reports", "disable_sublist_cache", "no_sublist_cache", "no_fast_producer_stall"),
        *("proxy_protocol", "proxies", "ocsp", "ocsp_cache", "operator", "operators", "trusted", "trusted_keys"),
        *("resolver", "resolver_tls", "resolver_preload", "resolver_pinned_accounts", "default_sentinel"),
        *("websocket", "ws", "leaf", "leafnodes", "gateway", "mqtt", "default_permissions"),
    )
)
JETSTREAM: Final = frozenset(
    (
        *("domain", "unique_tag", "key", "ek", "encryption_key", "cipher", "prev_key", "prev_ek"),
        *("prev_encryption_key", "max_outstanding_catchup", "max_buffered_size", "max_buffered_msgs"),
        *("request_queue_limit", "info_queue_limit", "meta_compact", "meta_compact_size", "meta_compact_sync"),
        *("max_concurrent_io", "extension_hint", "tpm"),
    )
)
JETSTREAM_LIMITS: Final = frozenset({"max_ha_assets", "batch"})
CLUSTER: Final = frozenset(
    (
        *("tls", "no_advertise", "connect_retries", "connect_backoff", "permissions", "pool_size", "accounts"),
        *("compression", "ping_interval", "ping_max", "write_deadline", "write_timeout"),
    )
)
CLUSTER_AUTHORIZATION: Final = frozenset(
    ("default_permissions", "default_permission", "permissions", "auth_callout", "auth_hook", "proxy_required")
)
AUTHORIZATION: Final = frozenset(
    (
        *("default_permissions", "default_permission", "permissions", "auth_callout", "auth_hook"),
        "proxy_required",
    )
)
USER: Final = frozenset(
    (
        *("nkey", "permissions", "permission", "authorization", "allowed_connection_types"),
        *("connection_types", "clients", "proxy_required"),
    )
)


def refusal(key: str) -> str:
    """What the user reads."""
    return f'"{key}" is not supported by this version of jetstore'
