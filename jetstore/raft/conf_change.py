"""Changing the members of a group, as its leader: the guards, and what follows when a change is committed.

A configuration is in effect from the moment its entry is appended (Raft paper §6). Two guards make one change at a time
safe: none while another one is uncommitted, and none before the leader has committed an entry of its own term (thesis
§4.1 and the erratum of 2015: two leaders could otherwise commit under disjoint majorities). The same guards hold for
joint changes, which the leader leaves by itself when entering is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.errors import ConfChangeRefused, NotNow
from jetstore.raft.log import Entry
from jetstore.raft.membership import ConfChange, Configuration
from jetstore.raft.quorum import is_quorum

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore
    from jetstore.raft.leader import Leader


def propose(core: RaftCore, leader: Leader, change: ConfChange, *, is_forced: bool) -> Entry:
    """Append the configuration that ``change`` comes to. Raises NotNow or ConfChangeRefused, and nothing is changed."""
    if leader.closed_by:
        raise NotNow(leader.closed_by)
    if not leader.has_committed_own_term:
        raise NotNow("nothing of this leader's term is committed yet")
    if core.configurations.index > core.log.committed_index:
        raise NotNow("another configuration change is under way")
    before = core.configuration
    after = before.changed(change)
    _check_lag(core, leader, before, after)
    if not is_forced:
        _check_alive(core, leader, before, after)
    return leader.append(after.encode())


def _check_lag(core: RaftCore, leader: Leader, before: Configuration, after: Configuration) -> None:
    """A learner that is to vote must hold nearly everything, durably: else the new quorum waits for it."""
    for member in sorted(after.voters & before.learners):
        lag = core.log.last_index - leader.progress[member].match_index
        if lag > core.options.promote_lag_entries:
            raise NotNow(f"learner {member} is {lag} entries behind")


def _check_alive(core: RaftCore, leader: Leader, before: Configuration, after: Configuration) -> None:
    """Voters must not be removed if those that stay and are alive are no quorum."""
    if before.voters <= after.voters:
        return
    alive = {member for member, progress in leader.progress.items() if progress.is_alive}
    alive.add(core.member)
    if not is_quorum(after.voters, (), alive):
        raise ConfChangeRefused(f"of the voters {sorted(after.voters)} only {sorted(after.voters & alive)} are alive")


def after_commit(core: RaftCore, leader: Leader) -> None:
    """The commit index moved in a configuration that is joint, or has no vote for this leader: leave it, or leave."""
    if core.configurations.index > core.log.committed_index:
        return
    configuration = core.configuration
    if configuration.is_joint:
        if configuration.auto_leave and leader.has_committed_own_term:
            leader.append(configuration.changed(ConfChange.leave_joint()).encode())
    else:
        leader.leave_office()
