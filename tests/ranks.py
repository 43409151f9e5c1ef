"""Several ranks on this machine, as torchrun starts them."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed import TCPStore

from segnet.system.errors import UserError

HUNG = 120  # seconds, after which a rank says where it stands and ends


class Ranks:
    """Processes of which each runs `body` as one of `count` ranks, forked from this one."""

    def __init__(self, count: int, body: Callable[[], object], folder: Path) -> None:
        self.outputs = [folder / f"rank{number}.txt" for number in range(count)]
        told, tell = os.pipe()
        self.processes = [self._start(number, count, told, body) for number in range(count)]
        self.store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # as torchrun has: no race for a port
        os.write(tell, f"{self.store.port:5}".encode() * count)  # only now, since the store's thread may hold a lock in a fork
        os.close(told)
        os.close(tell)

    def _start(self, number: int, count: int, told: int, body: Callable[[], object]) -> int:
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            faulthandler.dump_traceback_later(HUNG, exit=True, file=self.outputs[number].open("w"))
            port = os.read(told, 5).decode().strip()
            os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
            torch.set_num_threads(1)  # after a fork torch mends its thread pool once, which two threads must not do at a time
            sys.stdout = sys.stderr = self.outputs[number].open("a", buffering=1)
            try:
                body()
                status = 0
            except UserError as error:
                print(f"error: {error}")
                status = error.code
            except SystemExit as leaving:
                status = int(leaving.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def wait(self) -> list[int]:
        """The exit status of each; negative for a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in self.processes]

    def text(self) -> str:
        return "\n".join(path.read_text() for path in self.outputs)
