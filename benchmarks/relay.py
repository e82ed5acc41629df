"""A TCP relay in user space that delays what passes through it, as a distant host would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def relay(address: str, ports: list[int], host: Callable[[], str], round_trip: float) -> Iterator[None]:
    """Listens on `address` at `ports`; passes on to what `host` says then; half of `round_trip` (s) each way."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        for port in ports:
            await asyncio.start_server(partial(_connect, host, port, round_trip), address, port)
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()
        loop.set_exception_handler(lambda *_: None)  # of connections that still hang on: they are cut
        for task in (tasks := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not ready.wait(5):
        raise SystemExit(f"relay: cannot listen on {address}, ports {ports}; is one taken, for all addresses?")
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _connect(
    host: Callable[[], str], port: int, round_trip: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await asyncio.sleep(round_trip)  # TCP's own handshake
    try:
        there, back = await asyncio.open_connection(host(), port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pass_on(reader, back, round_trip / 2), _pass_on(there, writer, round_trip / 2))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Each piece leaves `delay` after it came; pieces do not wait for one another."""
    loop = asyncio.get_running_loop()
    while data := await _read(reader):
        loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except OSError:
        return b""
