"""Streamed completions, many at once or one after another, and how each of them ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TypeVar

import httpx

Result = TypeVar("Result")
Clients = Callable[[], httpx.AsyncClient]


async def stream(http: httpx.AsyncClient, model: str, number: int, begun: set[int]) -> str:
    """ "whole", or why not; a stream that ends early without an error is neither."""
    question = {"model": model, "max_tokens": 48, "stream": True, "prompt": f"{number}", "ignore_eos": True}
    try:
        async with http.stream("POST", "/v1/completions", json=question) as reply:
            if reply.status_code != 200:
                body = json.loads(await reply.aread())
                return f"refused: {body['error']['message']}"
            last = ""
            async for line in reply.aiter_lines():
                last = line or last
                begun.add(number)
    except httpx.HTTPError as error:
        return f"broken: {type(error).__name__}"
    return (
        "whole" if last == "data: [DONE]" else "broken: said so" if '"error"' in last else f"cut: {last[:80]}"
    )


async def meanwhile(clients: Clients, model: str, work: Callable[[], Result]) -> tuple[Result, list[str]]:
    """What the work returns, and how streams ended that followed one another meanwhile, three at once."""
    ended: list[str] = []
    async with clients() as http:
        run = asyncio.create_task(asyncio.to_thread(work))

        async def ask(number: int) -> None:
            while not run.done():
                ended.append(await stream(http, model, number, set()))
                # what the work starts has no other processor
                await asyncio.sleep(2)

        await asyncio.gather(*(ask(number) for number in range(3)))
        return await run, ended


async def two_hundred(
    clients: Clients, model: str, disturb: Callable[[], Result]
) -> tuple[Result, list[str]]:
    """200 streams at once; `disturb` runs when they are under way. What it returns, and how they ended."""
    async with clients() as http:
        begun: set[int] = set()
        streams = [asyncio.create_task(stream(http, model, number, begun)) for number in range(200)]
        async with asyncio.timeout(120):
            while len(begun) < 20:
                await asyncio.sleep(0.05)
        done = await asyncio.to_thread(disturb)
        return done, list(await asyncio.gather(*streams))
