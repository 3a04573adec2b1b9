"""What a failed transaction means to a user."""

import pytest
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import InternalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import transaction
from control_plane.errors import StoreUnavailable


class CutWhileTalking(AsyncSession):
    async def flush(self, objects: object = None) -> None:
        words = "cannot switch to state 11; another operation (2) is in progress"
        told = AsyncAdapt_asyncpg_dbapi.InternalClientError(words)
        raise InternalError("SHOW TRANSACTION ISOLATION LEVEL", None, told)


async def test_a_connection_cut_between_two_messages_is_a_database_that_does_not_answer() -> None:
    with pytest.raises(StoreUnavailable):
        async with transaction(async_sessionmaker(class_=CutWhileTalking)) as session:
            await session.flush()
