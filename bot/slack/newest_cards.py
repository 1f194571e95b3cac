"""Remove buttons from older cards if a newer card about the same model makes them obsolete."""

from contextlib import suppress

from bot.domain.operations import Operation, Status
from bot.domain.requests import RevertChange
from bot.state.cards import Cards
from bot.state.operations import OperationNotFound, Operations
from bot.views.next_steps import REVERT, family, superseded


class NewestCards:
    """Records the newest card about each model, and removes obsolete buttons from older ones."""

    def __init__(self, operations: Operations, cards: Cards) -> None:
        self._operations, self._cards = operations, cards

    async def note(self, op: Operation) -> tuple[str, ...]:
        """Record that an operation has a card; returns the operations whose cards have changed. Idempotent."""
        changed: list[str] = []
        for card_family, actions in superseded(op.request.kind).items():
            older = await self._newest(card_family, op)
            if older and older.id != op.id:
                if older.request.at > op.request.at:
                    continue
                changed += await self._drop(older.id, actions)
            if card_family == family(op.request.kind):
                await self._cards.note(card_family, op.request.model, op.id)
        if isinstance(op.request, RevertChange) and op.status is Status.SUCCEEDED:
            changed += await self._drop(op.request.reverts, (REVERT,))
        return tuple(changed)

    async def _newest(self, family: str, op: Operation) -> Operation | None:
        with suppress(OperationNotFound):
            if op_id := await self._cards.newest(family, op.request.model):
                return await self._operations.load(op_id)
        return None

    async def _drop(self, op_id: str, actions: tuple[str, ...]) -> list[str]:
        def without(op: Operation) -> Operation:
            lost = tuple(action for action in actions if action not in op.obsolete)
            return op.model_copy(update={"obsolete": (*op.obsolete, *lost)}) if lost else op

        with suppress(OperationNotFound):
            await self._operations.update(op_id, without)
            return [op_id]
        return []
