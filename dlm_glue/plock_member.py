# SPDX-License-Identifier: GPL-2.0-only
"""A member of a lockspace and its copy of the lock state: who has it, who needs it, and how it gets there. Pure.

Whoever opens a channel says HELLO: it joins, was restarted, or has missed something. The lowest member that has the state says BEGIN;
its state at that place of the order follows in pieces, then END. Who needs it keeps what is delivered behind the BEGIN and applies it
after the END. If nobody has the state (all were restarted at once) everybody hears everybody's HELLO, and the one that came furthest
goes on from what it kept (plock_log.py). A HELLO of a node that comes anew removes what an earlier life of it has held: it may have died
and come back between two events.
"""

from __future__ import annotations

from typing import Any

from dlm_glue.plock_entry import Mode, execute
from dlm_glue.plock_space import Ask, Space
from dlm_glue.plock_wire import Kind, Message, Op, pack, pack_tree, unpack, unpack_tree
from vcs.errors import RemoteError

PIECE = 48_000
"Bytes of state in one message."


class Member:
    def __init__(self, me: int) -> None:
        self.me = me
        self.space = Space(me)
        self.fresh = True
        "It has never had the state in this membership."
        self.ready = False
        self.event = 0
        self.members: tuple[int, ...] = ()
        self.position = (0, 0)
        "How far the state goes: event and sequence."
        self.garbage = 0
        self.backlog: list[Ask] = []
        "Operations from before the state was there."
        # Among those that are ready, the same at each:
        self.stateless: set[int] = set()
        "Members that need the state, or are not known to have it."
        self.served: set[int] = set()
        "Those of them to whom it was sent."
        self.sending = 0
        "Who sends it now."
        self.covered: set[int] = set()
        "To whom."
        # Local:
        self._begun = False
        "Our BEGIN is under way."
        self._heard: dict[int, tuple[bool, tuple[int, int]]] = {}
        self._donor = 0
        self._pieces: list[bytes] = []
        self._buffer: list[tuple[int, int, int, Message] | tuple[int, tuple[int, ...]]] = []

    # --- this node's operations -----------------------------------------------------------------------------------------------------------

    def request(self, ticket: int, op: Op) -> None:
        if self.ready:
            self.space.request(ticket, op)
            return
        # What is ours alone needs nobody: no other node can use the file before it has heard from us.
        space = self.space
        entry = None if self.fresh else space.entries.get(op.number)
        if (
            entry is not None
            and (entry.mode, entry.node, entry.leaving) == (Mode.OWNED, self.me, False)
            and op.number not in space.inflight
            and all(other.number != op.number for _t, other in self.backlog)
        ):
            entry.uses += 1
            space.answers += execute(entry.file, self.me, ticket, op)
            return
        self.backlog.append((ticket, op))

    # --- the channel ----------------------------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """A new channel: what came before on another one has ended somewhere."""
        self.ready = self._begun = False
        self.event, self.members = 0, ()
        self.space.out.clear()
        self._forget_transfer()

    def _forget_transfer(self) -> None:
        self._heard.clear()
        self._donor = 0
        self._pieces, self._buffer = [], []

    def on_event(self, event: int, members: tuple[int, ...]) -> None:
        """From here on messages are of ``event``."""
        self.event = event
        if self.ready:
            self._ready_event(event, members)
            return
        self.members = members
        if self._donor in members:
            self._buffer.append((event, members))
            return
        self._forget_transfer()
        self._hello(again=False)

    def on_message(self, event: int, seq: int, sender: int, raw: bytes) -> None:
        try:
            message = unpack(raw)
        except RemoteError:
            self.garbage += 1
            return
        if self.ready:
            self._ready_message(event, seq, sender, message)
        elif self._donor:
            self._receive(event, seq, sender, message)
        else:
            self._listen(sender, message)

    # --- without the state ----------------------------------------------------------------------------------------------------------------

    def _hello(self, again: bool) -> None:
        self.space.out.append(pack(Kind.HELLO, int(self.fresh), int(again), *self.position))

    def _listen(self, sender: int, message: Message) -> None:
        kind = message.kind
        if kind is Kind.BEGIN:
            self._donor = sender
            self._pieces, self._buffer = [], []
        elif kind is Kind.READY:
            self._heard.pop(sender, None)
        elif kind is Kind.END:
            self._heard.clear()  # there are some with the state now
            self._hello(again=False)
        elif kind is Kind.HELLO:
            fresh, again, event, seq = message.values
            self._heard[sender] = (bool(fresh), (event, seq))
            if sender != self.me and not again:
                self._hello(again=True)
            if self.members and all(n in self._heard for n in self.members):
                self._nobody_has_it()

    def _nobody_has_it(self) -> None:
        heard = self._heard
        best = max(self.members, key=lambda n: (not heard[n][0], heard[n][1], -n))
        if best != self.me:
            return  # its BEGIN follows
        known = {*self.space.applied, *self.space.made}
        for entry in self.space.entries.values():
            known.update(held.node for held in entry.file.locks)
            known.update(w.lock.node for w in entry.file.waiters)
            known.update(q.node for q in entry.queue)
            known.add(entry.node)
        gone = known - set(self.members) - {0}
        anew = {n for n in self.members if n != self.me and heard[n][0]}
        self.stateless, self.served, self.covered, self.sending = set(self.members) - {self.me}, set(), set(), 0
        for node in sorted(gone | anew):
            self.space.purge(node)
        self._become_ready()

    def _receive(self, event: int, seq: int, sender: int, message: Message) -> None:
        if sender == self._donor:
            if message.kind is Kind.DATA:
                self._pieces.append(message.body)
                return
            if message.kind is Kind.END:
                self._load(event, seq)
                return
            if message.kind is Kind.HELLO:  # it was restarted while it sent
                self._forget_transfer()
                self._hello(again=False)
                return
        self._buffer.append((event, seq, sender, message))

    def _load(self, event: int, seq: int) -> None:
        donor, buffer = self._donor, self._buffer
        try:
            tree = unpack_tree(b"".join(self._pieces))
            self.space.adopt(tree["space"])
            self.members = tuple(int(n) for n in tree["members"])
            self.stateless, self.served, self.covered = ({int(n) for n in tree[key]} for key in ("stateless", "served", "covered"))
        except (RemoteError, KeyError, TypeError, ValueError):
            self.garbage += 1
            self._forget_transfer()
            self._hello(again=False)
            return
        self.space.settle()
        self.sending = donor
        self._forget_transfer()
        self.ready, self.fresh = True, False
        for item in buffer:
            if len(item) == 2:
                self._ready_event(*item)
            else:
                self._ready_message(*item)
        self._ready_message(event, seq, donor, Message(Kind.END, (), b""))
        self._become_ready()

    def _become_ready(self) -> None:
        self.ready, self.fresh = True, False
        self._heard.clear()
        self.space.resume()
        self.space.out.append(pack(Kind.READY))
        backlog, self.backlog = self.backlog, []
        for ticket, op in backlog:
            self.space.request(ticket, op)
        self._donate()

    # --- with the state -------------------------------------------------------------------------------------------------------------------

    def _ready_event(self, event: int, members: tuple[int, ...]) -> None:
        before, self.members = set(self.members), members
        now = set(members)
        self.position = (event, 0)
        if self.sending not in now:
            self._sender_failed()
        self.stateless = (self.stateless | (now - before)) & now
        self.served &= now
        self.covered &= now
        for node in sorted(before - now):
            self.space.purge(node)
        self._donate()

    def _sender_failed(self) -> None:
        self.sending = 0
        self.covered.clear()

    def _ready_message(self, event: int, seq: int, sender: int, message: Message) -> None:
        self.position = (event, seq)
        match message.kind:
            case Kind.HELLO:
                self._needs(sender, bool(message.values[0]))
            case Kind.READY:
                self.stateless.discard(sender)
                self.served.discard(sender)
                self._donate()
            case Kind.BEGIN:
                self.sending = sender
                self.covered = self.stateless - {sender}
                if sender == self.me:
                    self._begun = False
                    self._send_state()
            case Kind.DATA:
                pass
            case Kind.END:
                if self.sending == sender:
                    self.served |= self.covered
                    self._sender_failed()
                    self._donate()
            case _:
                try:
                    self.space.deliver(sender, message)
                except RemoteError:
                    self.garbage += 1

    def _needs(self, node: int, fresh: bool) -> None:
        if node == self.sending:
            self._sender_failed()
        if fresh:
            self.space.purge(node)
        self.stateless.add(node)
        self.served.discard(node)
        self.covered.discard(node)
        if node == self.me:
            self.space.out.append(pack(Kind.READY))
        self._donate()

    def _donate(self) -> None:
        able = [n for n in self.members if n not in self.stateless]
        if self.stateless - self.served and not self.sending and not self._begun and self.me == min(able, default=0):
            self._begun = True
            self.space.out.append(pack(Kind.BEGIN))

    def _send_state(self) -> None:
        tree = {
            "space": self.space.tree(),
            "members": self.members,
            "stateless": sorted(self.stateless),
            "served": sorted(self.served),
            "covered": sorted(self.covered),
        }
        data = pack_tree(tree)
        self.space.out += [pack(Kind.DATA, body=data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
        self.space.out.append(pack(Kind.END))

    # --- what outlives the process --------------------------------------------------------------------------------------------------------

    @property
    def receiving(self) -> bool:
        """In the middle of a transfer: no time for a checkpoint."""
        return self._donor != 0

    def tree(self) -> Any:
        """Everything, but for a transfer in its middle."""
        return {
            "fresh": self.fresh,
            "ready": self.ready,
            "event": self.event,
            "members": self.members,
            "position": self.position,
            "sets": [sorted(self.stateless), sorted(self.served), sorted(self.covered)],
            "sending": self.sending,
            "begun": self._begun,
            "heard": [[node, fresh, *position] for node, (fresh, position) in self._heard.items()],
            "backlog": [[ticket, list(op)] for ticket, op in self.backlog],
            "space": self.space.tree(whole=True),
            "local": self.space.local_tree(),
        }

    @classmethod
    def from_tree(cls, me: int, tree: Any) -> Member:
        """Of our own checkpoint. Raises RemoteError, KeyError, TypeError, ValueError: it is none."""
        member = cls(me)
        member.fresh, member.ready, member.event, member.sending = tree["fresh"], tree["ready"], tree["event"], tree["sending"]
        member.members = tuple(tree["members"])
        member.position = (tree["position"][0], tree["position"][1])
        member.stateless, member.served, member.covered = map(set, tree["sets"])
        member._begun = tree["begun"]
        member._heard = {node: (fresh, (event, seq)) for node, fresh, event, seq in tree["heard"]}
        member.backlog = [(ticket, Op(*op)) for ticket, op in tree["backlog"]]
        member.space.adopt(tree["space"], own=True)
        member.space.set_local(tree["local"])
        return member
