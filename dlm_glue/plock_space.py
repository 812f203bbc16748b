# SPDX-License-Identifier: GPL-2.0-only
"""The POSIX locks of one lockspace: a state machine that every member of its group feeds with the same ordered messages. Pure.

A file that one node uses is *owned*: that node decides by itself, and nothing is sent. The first operation of another node reaches
everybody at one place of the order, and revokes the ownership there: the owner, at that place, decides nothing any more and says what
there is (SYNC); operations that come before that wait, in order. From then on every operation on the file is a message, until one
node alone has used it for long, or nobody at all.

``request`` takes this node's operations, ``deliver`` the messages of all; ``out`` and ``answers`` are what is to be sent and told.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from dlm_glue.plock_entry import (
    NO_ANSWER,
    SOLO_MAX,
    Entry,
    Mode,
    Queued,
    Result,
    entry_tree,
    execute,
    file_tree,
    tree_entry,
    tree_file,
    without_file,
)
from dlm_glue.plock_ranges import File, Lock
from dlm_glue.plock_wire import Kind, Message, Op, Verb, pack, pack_tree, unpack_tree
from vcs.errors import RemoteError

Ask = tuple[int, Op]
"One of this node's operations: its ticket and what it wants."


class Space:
    def __init__(self, me: int) -> None:
        self.me = me
        self.entries: dict[int, Entry] = {}
        self.applied: dict[int, int] = {}
        "Of each node, the last of its ordered operations that was applied."
        self.made: dict[int, int] = {}
        "Of each node, how many of its results everybody has made."
        self.kept: dict[int, deque[tuple[int, Result]]] = {}
        "Those that the node may not have seen, with their numbers: it asks for them when it was restarted."
        self.epoch = 0
        self.mine: dict[int, Ask] = {}
        "Sent by this node and not delivered, by order."
        self.next = 1
        self.inflight: dict[int, int] = {}
        "How many of them, by file."
        self.held: dict[int, list[Ask]] = {}
        "Operations on a file of our own, behind others that are under way."
        self.out: list[bytes] = []
        self.answers: list[Result] = []

    # --- this node's operations -----------------------------------------------------------------------------------------------------------

    def request(self, ticket: int, op: Op) -> None:
        number = op.number
        if number in self.held:
            self.held[number].append((ticket, op))
            return
        entry = self.entries.get(number)
        if entry is not None and entry.mode is Mode.OWNED and entry.node == self.me and not entry.leaving:
            if number in self.inflight:
                self.held[number] = [(ticket, op)]
                return
            entry.uses += 1
            self.answers += execute(entry.file, self.me, ticket, op)
            return
        if number not in self.inflight:
            if entry is None and op.verb != Verb.LOCK:
                self.answers.append(without_file(self.me, ticket, op))
                return
            if op.verb == Verb.GET and entry is not None and entry.mode is Mode.SHARED:
                self.answers += execute(entry.file, self.me, ticket, op)
                return
        self._send(ticket, op)

    def _send(self, ticket: int, op: Op) -> None:
        order, self.next = self.next, self.next + 1
        self.mine[order] = (ticket, op)
        self.inflight[op.number] = self.inflight.get(op.number, 0) + 1
        self.out.append(self._packed(order, ticket, op))

    def _packed(self, order: int, ticket: int, op: Op) -> bytes:
        return pack(Kind.OP, order, ticket, self.made.get(self.me, 0), *op)

    def _let_go(self, number: int) -> None:
        """What was held back for this file goes its way."""
        for ticket, op in self.held.pop(number, ()):
            self.request(ticket, op)

    # --- what the order brings ------------------------------------------------------------------------------------------------------------

    def deliver(self, node: int, message: Message) -> None:
        """One message of ``node`` about files. Raises RemoteError."""
        values = message.values
        match message.kind:
            case Kind.OP:
                order, ticket, seen = values[:3]
                self._operation(node, order, ticket, seen, Op(*values[3:]))
            case Kind.SYNC:
                self._synced(node, values[0], values[1], tree_file(unpack_tree(message.body)))
            case Kind.RELEASE:
                entry = self.entries.get(values[0])
                if entry is not None and (entry.mode, entry.node, entry.epoch) == (Mode.OWNED, node, values[1]):
                    del self.entries[values[0]]
            case Kind.CONFIRM:
                entry = self.entries.get(values[0])
                if entry is not None and (entry.mode, entry.node, entry.epoch) == (Mode.OWNED, node, values[1]) and node != self.me:
                    entry.file = File()
            case Kind.DROP:
                entry = self.entries.get(values[0])
                if entry is not None and entry.mode is Mode.SHARED and entry.uses == values[1] and entry.file.idle():
                    del self.entries[values[0]]
            case _:
                raise RemoteError(f"{message.kind.name} is not about a file")

    def _operation(self, node: int, order: int, ticket: int, seen: int, op: Op) -> None:
        if order <= self.applied.get(node, 0):
            return  # said again by a node that was restarted
        self.applied[node] = order
        kept = self.kept.get(node)
        while kept and kept[0][0] <= seen:
            kept.popleft()
        if node == self.me:
            self.mine.pop(order, None)
            self._landed(op.number)
        self._apply(node, ticket, op)
        if node == self.me and op.number not in self.inflight:
            self._let_go(op.number)

    def _landed(self, number: int) -> None:
        left = self.inflight.get(number, 0) - 1
        if left > 0:
            self.inflight[number] = left
        else:
            self.inflight.pop(number, None)

    def _apply(self, node: int, ticket: int, op: Op) -> None:
        entry = self.entries.get(op.number)
        if entry is None:
            if op.verb != Verb.LOCK:
                self._result(without_file(node, ticket, op))
                return
            self.epoch += 1
            entry = self.entries[op.number] = Entry(op.number, Mode.OWNED, node, self.epoch)
        if entry.mode is Mode.SHARED:
            self._shared(entry, node, ticket, op)
        elif entry.mode is Mode.REVOKED:
            entry.queue.append(Queued(node, ticket, op))
        elif entry.node == node:
            if node == self.me:
                entry.uses += 1
                self.answers += execute(entry.file, node, ticket, op)
        elif op.verb in (Verb.UNLOCK, Verb.CANCEL):
            self._result(without_file(node, ticket, op))
        else:
            entry.mode = Mode.REVOKED
            entry.queue.append(Queued(node, ticket, op))
            if entry.node == self.me:
                self.say_sync(entry)
                self._let_go(op.number)

    def say_sync(self, entry: Entry) -> None:
        self.out.append(pack(Kind.SYNC, entry.number, entry.epoch, body=pack_tree(file_tree(entry.file))))

    def _synced(self, node: int, number: int, epoch: int, file: File) -> None:
        entry = self.entries.get(number)
        if entry is not None and (entry.mode, entry.node, entry.epoch) == (Mode.REVOKED, node, epoch):
            self._open(entry, file)

    def _open(self, entry: Entry, file: File) -> None:
        """Everybody has the contents now."""
        queue = entry.queue
        entry.mode, entry.node, entry.file, entry.queue, entry.leaving = Mode.SHARED, 0, file, [], False
        entry.last = entry.solo = 0
        for node, ticket, op in queue:
            # While it runs the file may become somebody's own, or even be gone.
            self._apply(node, ticket, op)

    def _shared(self, entry: Entry, node: int, ticket: int, op: Op) -> None:
        for result in execute(entry.file, node, ticket, op):
            self._result(result)
        entry.uses += 1
        if entry.last != node:
            entry.last, entry.solo = node, 0
        entry.solo += 1
        if entry.solo >= entry.limit and entry.file.only(node):
            self.epoch += 1
            entry.mode, entry.node, entry.epoch, entry.solo = Mode.OWNED, node, self.epoch, 0
            entry.limit = min(entry.limit * 2, SOLO_MAX)
            if node == self.me:
                self.out.append(pack(Kind.CONFIRM, entry.number, entry.epoch))

    def _result(self, result: Result) -> None:
        node = result.node
        made = self.made[node] = self.made.get(node, 0) + 1
        self.kept.setdefault(node, deque()).append((made, result))
        if node == self.me:
            self.answers.append(result)

    def purge(self, node: int) -> None:
        """A node is gone, or comes anew: nothing of it is left, and those who waited for it go on."""
        for counts in (self.applied, self.made, self.kept):
            counts.pop(node, None)
        for number in sorted(self.entries):
            entry = self.entries[number]
            entry.queue = [q for q in entry.queue if q.node != node]
            if entry.mode is Mode.SHARED:
                entry.file.purge(node)
                for waiter in entry.file.grant():
                    self._result(Result(waiter.lock.node, waiter.ticket, 0))
            elif entry.node == node:
                if entry.mode is Mode.OWNED:
                    del self.entries[number]
                else:
                    self._open(entry, File())

    # --- idle files -----------------------------------------------------------------------------------------------------------------------

    def tidy(self, members: tuple[int, ...]) -> None:
        """Some time has gone by since the last call: files that nobody has used since then are forgotten."""
        for entry in self.entries.values():
            if entry.file.idle() and entry.seen_uses == entry.uses and not entry.leaving:
                if entry.mode is Mode.OWNED and entry.node == self.me and entry.number not in self.inflight:
                    entry.leaving = True
                    self.out.append(pack(Kind.RELEASE, entry.number, entry.epoch))
                elif entry.mode is Mode.SHARED and self.me == (entry.last if entry.last in members else min(members, default=0)):
                    self.out.append(pack(Kind.DROP, entry.number, entry.uses))
            entry.seen_uses = entry.uses

    # --- state transfer -------------------------------------------------------------------------------------------------------------------

    def tree(self, whole: bool = False) -> Any:
        """What all members have in common; ``whole``: with the contents of this node's own files."""
        kept = [[node, [[n, r.ticket, r.rv, r.holder] for n, r in results]] for node, results in self.kept.items()]
        entries = [entry_tree(e, whole or e.mode is Mode.SHARED or e.node != self.me) for e in self.entries.values()]
        return {"epoch": self.epoch, "applied": [*self.applied.items()], "made": [*self.made.items()], "kept": kept, "entries": entries}

    def local_tree(self) -> Any:
        """What is under way."""
        mine = [[order, ticket, list(op)] for order, (ticket, op) in self.mine.items()]
        held = [[number, [[ticket, list(op)] for ticket, op in asks]] for number, asks in self.held.items()]
        return {"next": self.next, "mine": mine, "held": held}

    def set_local(self, tree: Any) -> None:
        """Of our own checkpoint."""
        self.next = tree["next"]
        self.mine = {order: (ticket, Op(*op)) for order, ticket, op in tree["mine"]}
        self.held = {number: [(ticket, Op(*op)) for ticket, op in asks] for number, asks in tree["held"]}
        self.inflight = {}
        for _ticket, op in self.mine.values():
            self.inflight[op.number] = self.inflight.get(op.number, 0) + 1

    def adopt(self, tree: Any, own: bool = False) -> None:
        """Another member's state takes this one's place; own files and what is under way stay. ``own``: it is this node's own, as it was.
        Raises RemoteError, and changes nothing then."""
        try:
            applied = {int(n): int(v) for n, v in tree["applied"]}
            made = {int(n): int(v) for n, v in tree["made"]}
            kept = {
                int(node): deque((int(n), Result(int(node), int(t), int(rv), Lock(*by) if by else None)) for n, t, rv, by in results)
                for node, results in tree["kept"]
            }
            entries = {e.number: e for e in map(tree_entry, tree["entries"])}
            epoch = int(tree["epoch"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RemoteError(f"no state of POSIX locks: {error!r}") from None
        me, before, seen = self.me, self.entries, self.made.get(self.me, 0)
        for entry in entries.values():
            if entry.mode is not Mode.SHARED and entry.node == me:
                mine = before.get(entry.number)
                if mine is not None and mine.mode is not Mode.SHARED and (mine.node, mine.epoch) == (me, entry.epoch):
                    entry.file, entry.uses = mine.file, mine.uses
        self.entries, self.applied, self.made, self.kept, self.epoch = entries, applied, made, kept, epoch
        if not own:
            self.answers += [result for number, result in kept.get(me, ()) if number > seen]

    def settle(self) -> None:
        """Another member's state was adopted: what of ours was delivered while nobody here listened."""
        done, known = self.applied.get(self.me, 0), self._known()
        mine, self.mine, self.inflight = self.mine, {}, {}
        for order in sorted(mine):
            ticket, op = mine[order]
            if order > done:
                self.mine[order] = (ticket, op)
                self.inflight[op.number] = self.inflight.get(op.number, 0) + 1
            elif ticket not in known:
                self._own(ticket, op)

    def resume(self) -> None:
        """The state is there, up to this place of the order: say again what is under way, each operation exactly once and in order."""
        self.out = [message for message in self.out if message[0] != Kind.OP]
        self.out += [self._packed(order, ticket, op) for order, (ticket, op) in sorted(self.mine.items())]
        for entry in self.entries.values():
            entry.leaving = False
            if entry.node == self.me and entry.mode is Mode.REVOKED:
                self.say_sync(entry)
            elif entry.node == self.me and entry.mode is Mode.OWNED:
                self.out.append(pack(Kind.CONFIRM, entry.number, entry.epoch))
        for number in list(self.held):
            if number not in self.inflight:
                self._let_go(number)

    def _known(self) -> set[int]:
        """This node's tickets that have a result, wait, or stand in a queue."""
        known = {result.ticket for _n, result in self.kept.get(self.me, ())}
        for entry in self.entries.values():
            known.update(q.ticket for q in entry.queue if q.node == self.me)
            known.update(w.ticket for w in entry.file.waiters if w.lock.node == self.me)
        return known

    def _own(self, ticket: int, op: Op) -> None:
        """It was delivered while nobody here listened, and nobody else has its result: it was for a file of this node alone."""
        entry = self.entries.get(op.number)
        if entry is not None and entry.node == self.me and entry.mode is not Mode.SHARED:
            entry.uses += 1
            self.answers += execute(entry.file, self.me, ticket, op)


__all__ = ["NO_ANSWER", "Ask", "Space"]
