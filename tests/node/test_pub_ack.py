"""What PubAcks say of where a message is: with names and domains that JSON has to escape."""

from __future__ import annotations

import json

import pytest

from jetstore.model.api_errors import api_error
from jetstore.node import pub_ack


@pytest.mark.parametrize("stream", ["S", 'q"uote', "back\\slash", "ünï%d"])
@pytest.mark.parametrize("domain", ["", "hub", 'd"'])
def test_place(stream: str, domain: str) -> None:
    shown = json.loads(b'{"stream":"%b","seq":5}' % pub_ack.place(stream, domain))
    assert shown == {"stream": stream, **({"domain": domain} if domain else {}), "seq": 5}
    assert list(shown)[-1] == "seq"


def test_refused() -> None:
    shown = json.loads(pub_ack.refused("S", api_error("JSStreamSealedErr")))
    assert list(shown) == ["error", "stream", "seq"]
    assert shown["error"]["err_code"] == 10109
