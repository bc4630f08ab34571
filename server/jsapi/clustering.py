"""Handlers of what only a cluster can do, or the system account: leaders step down, copies move, accounts go."""

from __future__ import annotations

from jetstore.model.api_errors import api_error
from jetstore.model.json import GoStruct
from jetstore.model.stream import Placement
from server.jsapi.ports import ClusterOperations
from server.jsapi.request import Backend, JsonDict, Request, require_body


class _StepDownRequest(GoStruct):
    placement: Placement | None = None


class _PeerRequest(GoStruct):
    peer: str = ""


class _ServerRequest(GoStruct):
    peer: str = ""
    peer_id: str = ""


def _cluster(backend: Backend) -> ClusterOperations:
    cluster = backend.node.cluster
    if cluster is None:
        raise api_error("JSClusterRequiredErr")
    return cluster


def _placement(backend: Backend, request: Request) -> Placement | None:
    fields = backend.decode_optional(_StepDownRequest, request.body, "JSApiLeaderStepdownRequest")
    return _StepDownRequest(**fields).placement


async def step_down_stream(backend: Backend, request: Request) -> JsonDict:
    """STREAM.LEADER.STEPDOWN."""
    cluster = _cluster(backend)
    await cluster.step_down_stream(request.names[0], _placement(backend, request))
    return {"success": True}


async def step_down_consumer(backend: Backend, request: Request) -> JsonDict:
    """CONSUMER.LEADER.STEPDOWN: of the group that the consumer lives in, which is its stream's."""
    cluster = _cluster(backend)
    stream, consumer = request.names
    await cluster.step_down_consumer(stream, consumer, _placement(backend, request))
    return {"success": True}


async def step_down_meta(backend: Backend, request: Request) -> JsonDict:
    """META.LEADER.STEPDOWN."""
    await _cluster(backend).step_down_meta(_placement(backend, request))
    return {"success": True}


async def remove_peer(backend: Backend, request: Request) -> JsonDict:
    """STREAM.PEER.REMOVE and EVACUATE: a server, by name or peer id. The same here: copies only go when replaced."""
    cluster = _cluster(backend)
    require_body(request.body)
    asked = _PeerRequest(**backend.decode(_PeerRequest, request.body, "JSApiStreamRemovePeerRequest"))
    if not asked.peer:
        raise api_error("JSBadRequestErr")
    await cluster.remove_peer(request.names[0], asked.peer)
    return {"success": True}


async def purge_account(backend: Backend, request: Request) -> JsonDict:
    """ACCOUNT.PURGE: answered when all that the account had is gone for good; to have nothing is no error."""
    node = backend.of_account(request.names[0])
    if node is not None:
        await node.delete_streams()
    return {"initiated": True}


async def remove_server(backend: Backend, request: Request) -> JsonDict:
    """SERVER.REMOVE: by name, or by peer id."""
    cluster = _cluster(backend)
    require_body(request.body)
    asked = _ServerRequest(**backend.decode(_ServerRequest, request.body, "JSApiMetaServerRemoveRequest"))
    await cluster.remove_server(asked.peer, asked.peer_id)
    return {"success": True}
