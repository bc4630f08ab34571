"""``jetstore inspect``, ``verify`` and ``recover``: a store looked at, checked, and got out of damage. Offline."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from jetstore.errors import JetstoreError, StoreLocked
from jetstore.limits import Limits
from jetstore.meta.stream_key import account_of, name_of
from jetstore.node.examine import GroupReport, StoreReport, examine, verify
from jetstore.node.recover import Recovered
from jetstore.node.recover import recover as recover_store
from jetstore.store.index_check import stored_indexes
from jetstore.store.journal.files import file_numbers
from jetstore.store.key_file import read_keys
from jetstore.store.keys import Keys
from jetstore.store.lock import DirectoryLock
from jetstore.store.os_vfs import OsVfs
from server.config.errors import ConfigError
from server.config.reader import load_options

STORE_NAME = "jetstore"
_HELP = {"help_option_names": ["-h", "--help"]}
_store = click.option(
    "-sd", "--store_dir", "store_dir", required=True, type=click.Path(path_type=Path), help="As given to serve."
)
_config = click.option(
    "-c", "--config", "config", type=click.Path(path_type=Path), help="As given to serve: has an encrypted store's key."
)


def _root(store_dir: Path) -> Path:
    """The store's own directory, whether it or its parent was named."""
    for root in (store_dir / STORE_NAME, store_dir):
        if (root / "IDENTITY").exists() or (root / "IDENTITY.b").exists() or (root / "journal").exists():
            return root
    raise click.ClickException(f"there is no jetstore store in {store_dir}")


def _vfs(root: Path, config: Path | None) -> OsVfs:
    """The store's files, with its keys."""
    encryption = None
    try:
        if config is not None:
            encryption = load_options(config, os.environ).jetstream.encryption
        vfs = OsVfs(root)
        vfs.keys = read_keys(vfs, encryption, os.urandom)
    except ConfigError as error:
        raise click.ClickException(str(error).rstrip()) from error
    except JetstoreError as error:
        raise click.ClickException(f"{error}; name the server's configuration with -c") from error
    return vfs


def _lock(root: Path) -> DirectoryLock:
    """The store's lock: what is written while one looks cannot be judged."""
    try:
        return DirectoryLock(root)
    except StoreLocked as error:
        raise click.ClickException(f"{error}; stop the server first") from error


@click.command(context_settings=_HELP)
@_store
@_config
def inspect(store_dir: Path, config: Path | None) -> None:
    """Show what a store holds. Changes nothing; safe on a damaged store."""
    root = _root(store_dir)
    lock = _lock(root)
    try:
        vfs = _vfs(root, config)
        report, files = examine(vfs, Limits())
        _show(report, root, vfs.keys)
        files.close()
    finally:
        lock.close()


@click.command("verify", context_settings=_HELP)
@_store
@_config
def verify_command(store_dir: Path, config: Path | None) -> None:
    """Read everything and check it. Exit code 0: all acknowledged data is readable; 1: damage, named line by line."""
    root = _root(store_dir)
    lock = _lock(root)
    try:
        vfs = _vfs(root, config)
        report, files = examine(vfs, Limits())
        has_index = vfs.keys is None  # that of an encrypted store is in memory only
        verify(vfs, Limits(), report, partial(stored_indexes, str(root.absolute())) if has_index else None)
        _show(report, root, vfs.keys)
        files.close()
    finally:
        lock.close()
    if not report.is_sound:
        click.echo("DAMAGED: see the lines above; nothing was changed")
        sys.exit(1)
    click.echo("OK: everything that the store refers to was read and is as it was written")


@click.command("recover", context_settings=_HELP)
@_store
@_config
@click.option(
    "--export", "export_dir", required=True, type=click.Path(path_type=Path), help="Folder for what is readable."
)
def recover_command(store_dir: Path, config: Path | None, export_dir: Path) -> None:
    """Accept the loss in damaged streams: export what is readable behind the fault, leave an explicit gap."""
    root = _root(store_dir)
    export_dir.mkdir(parents=True, exist_ok=True)

    def export(name: str, lines: Iterator[bytes]) -> int:
        path = export_dir / f"{name}.jsonl"
        count = 0
        with path.open("xb") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        return count

    lock = _lock(root)
    try:
        done, remaining = recover_store(_vfs(root, config), Limits(), export)
    except FileExistsError as error:
        raise click.ClickException(f"{error.filename} exists already: name a fresh folder") from error
    except (JetstoreError, OSError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        lock.close()
    for stream in done:
        _show_recovered(stream, export_dir)
    for finding in remaining:
        click.echo(f"still damaged: {finding}")
    if not done and not remaining:
        click.echo("nothing to do: the store is readable")
    if remaining:
        sys.exit(1)


def _show_recovered(stream: Recovered, export_dir: Path) -> None:
    gap = "no sequence is missing at the end"
    if stream.last_lost_seq >= stream.first_lost_seq:
        gap = f"sequences {stream.first_lost_seq}-{stream.last_lost_seq} are an explicit gap now"
    lost = f"up to {stream.lost_messages_max}" if stream.lost_messages_max >= 0 else "nobody knows how many"
    click.echo(f"{stream.name}: mended; {gap}; messages lost: {lost}")
    for first, last in stream.lost:
        click.echo(f"{stream.name}: stored messages in {first}-{last} were unreadable and are removed")
    if stream.exported_messages:
        target = export_dir / f"{stream.name}.jsonl"
        click.echo(f"{stream.name}: {stream.exported_messages} messages behind the fault exported to {target}")
    for note in stream.notes:
        click.echo(f"{stream.name}: {note}")


def _show(report: StoreReport, root: Path, keys: Keys | None) -> None:
    click.echo(f"store       {root}")
    if keys is not None:
        state = "; what was stored before is not all encrypted yet" if keys.is_mixed else ""
        if keys.is_due and not state:
            state = "; what was stored before is not all under the newest key yet"
        click.echo(f"encryption  {keys.cipher_name}{state}")
    if report.identity is not None:
        who = report.identity
        click.echo(f"node        {who.node_name or who.node_id}  id {who.node_id}  boots {who.boot_counter}")
    numbers = file_numbers(sorted(os.listdir(root / "journal"))) if (root / "journal").is_dir() else []
    if numbers:
        click.echo(f"journal     files {numbers[0]}-{numbers[-1]}")
    for group in sorted(report.groups, key=lambda g: g.uid):
        _show_group(group)
    for note in report.notes:
        click.echo(f"note        {note}")
    for finding in report.findings:
        click.echo(f"DAMAGE      {finding}")


def _shown_name(group: GroupReport) -> str:
    name = group.name
    return f"{account_of(name)}/{name_of(name)}" if group.assignment else name


def _show_group(group: GroupReport) -> None:
    recovery = group.recovery
    click.echo(
        f"group {group.uid:<5} {_shown_name(group)}  term {recovery.term}"
        f"  checkpoint {group.checkpoint_index}  last {recovery.last_index}"
    )
    if group.stream is not None:
        state = group.stream.state()
        click.echo(
            f"            messages {state.messages}  bytes {state.bytes}  sequences {state.first_seq}-{state.last_seq}"
            f"  subjects {state.num_subjects}  consumers {', '.join(sorted(group.stream.consumers)) or 'none'}"
        )
    for finding in group.findings:
        click.echo(f"DAMAGE      {group.name}: {finding}")
