"""A board in shared memory where workers write how they are; made by the parent before it forks."""

import mmap
import struct
from typing import Final

_SLOT: Final = struct.Struct("=ii")  # connections, 1 when ready
_GONE: Final = -1


class Board:
    """One entry per slot, written by its worker alone and, once that has died, by the parent."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * _SLOT.size)
        self._slots = slots
        for slot in range(slots):
            self.clear(slot)

    def clear(self, slot: int) -> None:
        """No worker, or one that is not ready yet."""
        _SLOT.pack_into(self._memory, slot * _SLOT.size, _GONE, 0)

    def ready(self, slot: int) -> None:
        _SLOT.pack_into(self._memory, slot * _SLOT.size, 0, 1)

    def connections(self, slot: int, count: int) -> None:
        _SLOT.pack_into(self._memory, slot * _SLOT.size, count, 1)

    def is_ready(self, slot: int) -> bool:
        _, ready = _SLOT.unpack_from(self._memory, slot * _SLOT.size)
        return bool(ready)

    def others_have_fewer(self, slot: int) -> bool:
        """Another live worker holds fewer connections than this one."""
        counts = [_SLOT.unpack_from(self._memory, i * _SLOT.size)[0] for i in range(self._slots)]
        return any(_GONE < count < counts[slot] for count in counts)
