"""What the cluster has decided to exist. Entries are JSON: creating a stream is rare, this log is no hot path.

Desired configurations are versioned here; only what a stream's own group has applied has effect (STORAGE: apply).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jetstore.errors import ApiError, FormatUnknown
from jetstore.meta.catalogues import Catalogues
from jetstore.meta.placement import Member, Placement, members_of
from jetstore.model.api_errors import api_error
from jetstore.store.ports import Checkpoint
from jetstore.store.running_hash import RunningHash
from jetstore.types import META_GROUP, GroupUid, Nanos, RaftIndex, Term

HEAD_VERSION = 0
FOUNDING_OPS = (b'"op":"create"', b'"op":"reassign"')
"""What every entry contains that gives groups new members (and perhaps others)."""
FIRST_STREAM_UID = 2


@dataclass(frozen=True, slots=True)
class StreamAssignment:
    """One stream that exists."""

    uid: GroupUid
    name: str
    """Its key: ``stream_key`` of account and name."""
    config: dict[str, Any]
    """Desired configuration as its JSON object."""
    version: int
    """+1 with every accepted update; 1 at creation."""
    created_ns: Nanos
    created_index: RaftIndex = RaftIndex(0)
    """Of the entry that created it: a member that has applied more than this must have the group."""
    members: tuple[tuple[str, int], ...] = ()
    """(node id, incarnation) of its first voters 1, 2, …; () = the one node of a standalone server."""
    placement: Placement = field(default_factory=Placement)
    """Who holds it, and is to."""
    is_restoring: bool = False
    """It is being made from an archive: nobody sees it, and it goes if whoever makes it does."""


def encode_create(
    name: str,
    config: dict[str, Any],
    now_ns: Nanos,
    uid: GroupUid,
    members: Sequence[tuple[str, int]] = (),
    *,
    is_restoring: bool = False,
) -> bytes:
    """Entry that creates a stream under ``uid``, which must be the state's ``next_uid`` or later.

    ``is_restoring``: for whoever makes it from an archive, until ``encode_restored`` or ``encode_abandoned``.
    """
    more = {"restoring": True} if is_restoring else {}
    return _encode(op="create", name=name, config=config, now_ns=now_ns, uid=uid, members=members, **more)


def encode_restored(stream: StreamAssignment) -> bytes:
    """Entry that says that everything of an archive is in the stream: from now on it is one like any other."""
    return _encode(op="restored", name=stream.name, uid=stream.uid)


def encode_abandoned(stream: StreamAssignment) -> bytes:
    """Entry that deletes a stream that is being made from an archive, if it still is."""
    return _encode(op="abandoned", name=stream.name, uid=stream.uid)


def founded_by(data: bytes) -> tuple[GroupUid, tuple[Member, ...]] | None:
    """The group that gets members by an entry if it is accepted, and all that are wanted then; None: none does."""
    if not any(op in data for op in FOUNDING_OPS):
        return None
    request = json.loads(data)
    if request["op"] == "create":
        return GroupUid(request["uid"]), Placement.founding(_members(request), RaftIndex(0)).wanted
    if request["op"] == "reassign":
        return GroupUid(request["uid"]), members_of(request["wanted"])
    return None


def named_by(data: bytes) -> tuple[GroupUid, str] | None:
    """The group that an entry is about and its stream's key, whatever became of it; None: it does not say both."""
    try:
        request = json.loads(data)
        return GroupUid(request["uid"]), str(request["name"])
    except (ValueError, TypeError, KeyError):
        return None


def _members(fields: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    return tuple((node, incarnation) for node, incarnation in fields["members"])


def encode_update(name: str, config: dict[str, Any]) -> bytes:
    """Entry that replaces a stream's desired configuration."""
    return _encode(op="update", name=name, config=config)


def encode_delete(name: str) -> bytes:
    """Entry that deletes a stream."""
    return _encode(op="delete", name=name)


def encode_reassign(stream: StreamAssignment, wanted: Sequence[Member]) -> bytes:
    """Entry that wants other members (``placement.wanted_at``) for a stream; refused if its placement has changed."""
    return _encode(op="reassign", name=stream.name, uid=stream.uid, version=stream.placement.version, wanted=wanted)


def encode_settled(stream: StreamAssignment) -> bytes:
    """Entry that says that the wanted members are there, and nobody else."""
    return _encode(op="settled", name=stream.name, uid=stream.uid, version=stream.placement.version)


def encode_admit(state: MetaState, founding: Sequence[tuple[str, str, int]], name: str, home: tuple[str, int]) -> bytes:
    """Entry that makes a node a member of the metadata group, in place of the one that has its name, if there is one.

    ``founding``: (name, node id, incarnation) of those who founded the cluster, in the order of their numbers.
    """
    version = state.nodes.version if state.nodes is not None else 1
    return _encode(op="admit", version=version, founding=founding, name=name, home=home)


def encode_dismiss(state: MetaState, founding: Sequence[tuple[str, str, int]], home: tuple[str, int]) -> bytes:
    """Entry that takes a node out of the metadata group, and with it out of the cluster, for good.

    ``founding`` as in ``encode_admit``.
    """
    version = state.nodes.version if state.nodes is not None else 1
    return _encode(op="dismiss", version=version, founding=founding, home=home)


def encode_admitted(version: int) -> bytes:
    """Entry that says that the metadata group's own members are those that it wants."""
    return _encode(op="admitted", version=version)


def encode_skip(uid: GroupUid) -> bytes:
    """Entry that makes sure that no uid ≤ ``uid`` is ever given out (again)."""
    return _encode(op="skip", uid=uid)


def _encode(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()


class MetaState:
    """State machine of the metadata group."""

    def __init__(self) -> None:
        """An empty cluster."""
        self.applied_index = RaftIndex(0)
        self.applied_term = Term(0)
        self.streams: dict[str, StreamAssignment] = {}
        self.unsettled: dict[str, None] = {}
        """Names of streams whose members are to change: what their leaders have to look at."""
        self.restoring: dict[str, None] = {}
        """Names of streams that are being made from archives."""
        self.by_uid: dict[GroupUid, str] = {}
        """Names of streams by group."""
        self.changed: dict[str, None] = {}
        """Names of streams that were made, changed or deleted since who follows this state looked (and cleared it)."""
        self.catalogues = Catalogues()
        """What is in ``streams``, for the checks of new ones."""
        self.nodes: Placement | None = None
        """Members of the metadata group itself, which are the nodes of the cluster; None: those that founded it."""
        self.names: dict[str, str] = {}
        """Name by node id, of all who ever were in ``nodes``."""
        self.next_uid = GroupUid(FIRST_STREAM_UID)
        self.running = RunningHash()
        """Stands for all applied entries."""
        self.raft_configuration = b""
        """The group's members as of ``applied_index``, encoded; its driver's business, kept with the state."""

    def apply(
        self, index: RaftIndex, term: Term, data: bytes, cache: object = None
    ) -> StreamAssignment | ApiError | None:
        """Take one entry. Returns the stream it created, changed or deleted, or the error the requester gets."""
        self.applied_index, self.applied_term = index, term
        self.running.take(index, term, data)
        if not data:
            return None
        request = json.loads(data)
        match request["op"]:
            case "create":
                return self._create(request)
            case "update":
                return self._update(request)
            case "delete":
                return self._remove(request["name"]) or api_error("JSStreamNotFoundErr")
            case "restored" | "abandoned":
                return self._restored(request)
            case "admit":
                return self._admit(request)
            case "dismiss":
                return self._dismiss(request)
            case "admitted":
                if self.nodes is not None and self.nodes.version == request["version"]:
                    self.nodes = self.nodes.settled()
                return None
            case "reassign" | "settled":
                return self._place(request)
            case "skip":
                self.next_uid = GroupUid(max(self.next_uid, request["uid"] + 1))
                return None
            case other:
                raise FormatUnknown("meta entry", file="journal", offset=0, actual=other)

    def _create(self, request: dict[str, Any]) -> StreamAssignment | ApiError:
        uid, name = GroupUid(request["uid"]), request["name"]
        if name in self.streams:
            return api_error("JSStreamNameExistErr")
        if uid < self.next_uid:
            return api_error("JSClusterNotAvailErr")
        self.next_uid = GroupUid(uid + 1)
        members = _members(request)
        assignment = StreamAssignment(
            uid,
            name,
            request["config"],
            1,
            Nanos(request["now_ns"]),
            self.applied_index,
            members,
            Placement.founding(members, self.applied_index),
            request.get("restoring", False),
        )
        self._note(assignment)
        return assignment

    def _restored(self, request: dict[str, Any]) -> StreamAssignment | ApiError:
        """A stream that is being made from an archive is complete, or goes."""
        old = self.streams.get(request["name"])
        if old is None or old.uid != request["uid"] or not old.is_restoring:
            return api_error("JSStreamNotFoundErr")
        if request["op"] == "abandoned":
            self._remove(old.name)
            return old
        self._note(replace(old, is_restoring=False))
        return self.streams[old.name]

    def _update(self, request: dict[str, Any]) -> StreamAssignment | ApiError:
        old = self.streams.get(request["name"])
        if old is None:
            return api_error("JSStreamNotFoundErr")
        new = replace(old, config=request["config"], version=old.version + 1)
        self._note(new)
        return new

    def _place(self, request: dict[str, Any]) -> StreamAssignment | ApiError:
        """Want other members, or note that they are there."""
        old = self.streams.get(request["name"])
        if old is None or old.uid != request["uid"]:
            return api_error("JSStreamNotFoundErr")
        placement: Placement | None = None
        if old.placement.version == request["version"]:
            if request["op"] == "settled":
                placement = old.placement.settled()
            else:
                placement = old.placement.reassigned(members_of(request["wanted"]), self.applied_index)
        if placement is None:
            return api_error("JSClusterNotAvailErr")
        self._note(replace(old, placement=placement))
        return self.streams[old.name]

    def _admit(self, request: dict[str, Any]) -> ApiError | None:
        """Another node: nobody votes, or is trusted, by name; but of two with one name only the new one stays."""
        nodes, names = self._nodes(request["founding"])
        node, incarnation = request["home"]
        staying = [member for member in nodes.wanted if names[member.node] != request["name"]]
        after = nodes.reassigned([*staying, Member(nodes.next_member, node, incarnation)], self.applied_index)
        if nodes.version != request["version"] or after is None:
            return api_error("JSClusterNotAvailErr")
        self.nodes, self.names = after, {**names, node: request["name"]}
        return None

    def _dismiss(self, request: dict[str, Any]) -> ApiError | None:
        """One node less. Its name is kept: under it, another one may come some day."""
        nodes, names = self._nodes(request["founding"])
        staying = [member for member in nodes.wanted if member.home != tuple(request["home"])]
        after = nodes.reassigned(staying, self.applied_index)
        if nodes.version != request["version"] or after is None or len(staying) == len(nodes.wanted):
            return api_error("JSClusterNotAvailErr")
        self.nodes, self.names = after, names
        return None

    def _nodes(self, founding: Sequence[tuple[str, str, int]]) -> tuple[Placement, dict[str, str]]:
        """``nodes`` and ``names`` as they are, or as they were founded."""
        homes = [(node, incarnation) for _, node, incarnation in founding]
        nodes = self.nodes or Placement.founding(homes, RaftIndex(0))
        return nodes, self.names or {node: name for name, node, _ in founding}

    def successor(self, home: tuple[str, int]) -> tuple[str, int] | None:
        """Who lives under the name of a node that is not in the cluster any more; None: nobody, or it is in it."""
        if self.nodes is None:
            return None
        homes = {self.names[member.node]: member.home for member in self.nodes.wanted}
        found = homes.get(self.names.get(home[0], ""))
        return None if found == home else found

    def _note(self, assignment: StreamAssignment) -> None:
        name = assignment.name
        self.streams[name] = assignment
        self.catalogues.put(name, assignment.config)
        self.by_uid[assignment.uid] = name
        self.changed[name] = None
        if assignment.placement.is_settled:
            self.unsettled.pop(name, None)
        else:
            self.unsettled[name] = None
        if assignment.is_restoring:
            self.restoring[name] = None
        else:
            self.restoring.pop(name, None)

    def _remove(self, name: str) -> StreamAssignment | None:
        gone = self.streams.pop(name, None)
        if gone is not None:
            self.catalogues.drop(name)
            del self.by_uid[gone.uid]
            self.changed[name] = None
            self.unsettled.pop(name, None)
            self.restoring.pop(name, None)
        return gone

    def checkpoint(self) -> Checkpoint:
        """The whole state as one head."""
        head = {
            "version": HEAD_VERSION,
            "index": self.applied_index,
            "term": self.applied_term,
            "running": f"{self.running.value:016x}",
            "raft": self.raft_configuration.hex(),
            "next_uid": self.next_uid,
            **({"nodes": self.nodes.to_json(), "names": self.names} if self.nodes is not None else {}),
            "streams": [
                {
                    "uid": s.uid,
                    "name": s.name,
                    "config": s.config,
                    "version": s.version,
                    "created_ns": s.created_ns,
                    "created_index": s.created_index,
                    "members": s.members,
                    **({"placement": s.placement.to_json()} if s.placement.version > 1 else {}),
                    **({"restoring": True} if s.is_restoring else {}),
                }
                for s in sorted(self.streams.values(), key=lambda s: s.uid)
            ],
        }
        return Checkpoint(
            uid=META_GROUP,
            index=self.applied_index,
            term=self.applied_term,
            head=json.dumps(head, separators=(",", ":"), sort_keys=True).encode(),
            chunks={},
            keep_chunks=frozenset(),
            segments={},
        )

    @classmethod
    def restore(cls, head: bytes) -> MetaState:
        """The state that a checkpoint's head describes."""
        fields = json.loads(head)
        if fields["version"] != HEAD_VERSION:
            raise FormatUnknown("meta head version", file="HEAD", offset=0, expected=0, actual=fields["version"])
        state = cls()
        state.applied_index = RaftIndex(fields["index"])
        state.applied_term = Term(fields["term"])
        state.running = RunningHash(fields["index"], int(fields["running"], 16))
        state.raft_configuration = bytes.fromhex(fields["raft"])
        state.next_uid = GroupUid(fields["next_uid"])
        if "nodes" in fields:
            state.nodes, state.names = Placement.from_json(fields["nodes"]), fields["names"]
        for s in fields["streams"]:
            created, members = RaftIndex(s["created_index"]), _members(s)
            placement = (
                Placement.from_json(s["placement"]) if "placement" in s else Placement.founding(members, created)
            )
            state._note(
                StreamAssignment(
                    GroupUid(s["uid"]),
                    s["name"],
                    s["config"],
                    s["version"],
                    Nanos(s["created_ns"]),
                    created,
                    members,
                    placement,
                    s.get("restoring", False),
                )
            )
        return state
