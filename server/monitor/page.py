"""/: one static page with links and a live view over /varz and /jsz."""

from __future__ import annotations

from html import escape
from typing import Final

from server.monitor.ports import ServerFacts

_LINKS: Final = (
    ("varz", "General"),
    ("jsz?streams=1&consumers=1&config=1", "JetStream"),
    ("connz", "Connections"),
    ("subsz", "Subscriptions"),
    ("healthz", "Health"),
    ("metrics", "Prometheus metrics"),
)

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>%(name)s</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }
a { margin-right: 1rem } table { border-collapse: collapse; margin-top: 1rem }
td, th { padding: .15rem .8rem .15rem 0; text-align: right } td:first-child, th:first-child { text-align: left }
</style>
</head>
<body>
<h1>%(name)s</h1>
<p>jetstore %(jetstore)s (NATS surface %(version)s)</p>
<p>%(links)s</p>
<p id="now"></p>
<table id="streams"></table>
<script>
const cell = (row, text, tag) => { const c = document.createElement(tag); c.textContent = text; row.append(c) }
async function show() {
  const base = "%(base)s"
  const varz = await (await fetch(base + "/varz")).json()
  const jsz = await (await fetch(base + "/jsz?streams=1")).json()
  document.getElementById("now").textContent = `up ${varz.uptime}, ${varz.connections} connections, ` +
    `${varz.in_msgs} messages in, ${varz.out_msgs} out, cpu ${varz.cpu} %%, ` +
    `memory ${(varz.mem / 1048576).toFixed(1)} MiB`
  const table = document.getElementById("streams"), head = document.createElement("tr"), rows = [head]
  for (const text of ["stream", "messages", "bytes", "first", "last", "consumers"]) cell(head, text, "th")
  for (const account of jsz.account_details || []) for (const stream of account.stream_detail || []) {
    const row = document.createElement("tr"), state = stream.state
    const facts = [stream.name, state.messages, state.bytes, state.first_seq, state.last_seq, state.consumer_count]
    for (const fact of facts) cell(row, fact, "td")
    rows.push(row)
  }
  table.replaceChildren(...rows)
}
show(); setInterval(show, 2000)
</script>
</body>
</html>
"""


def index_page(facts: ServerFacts) -> bytes:
    """The page."""
    base = escape(facts.http_base_path.rstrip("/"))
    links = "".join(f'<a href="{base}/{escape(path)}">{text}</a>' for path, text in _LINKS)
    return (
        _PAGE
        % {
            "base": base,
            "name": escape(facts.server_name),
            "jetstore": escape(facts.jetstore),
            "version": escape(facts.version),
            "links": links,
        }
    ).encode()
