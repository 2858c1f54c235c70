"""Programs may use the harmless part of the standard library; refused calls fail at once.

No counterpart: this is what the layers of `isolation` and `seccomp` and `thread_semaphore` allow together.
"""

from __future__ import annotations

import threading
import time

import pytest

from evalkit.sandbox.guest import thread_semaphore
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CheckJob

HARMLESS = {
    "locale": "import locale\nlocale.setlocale(locale.LC_ALL, '')\nlocale.getlocale()\nlocale.localeconv()",
    "calendar": "import calendar\ncalendar.LocaleTextCalendar().formatmonth(2020, 1)",
    "multiprocessing.pool.ThreadPool": (
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(3) as pool:\n"
        "    assert pool.map(abs, [1, -2, 3]) == [1, 2, 3]\n    assert pool.apply_async(abs, (-4,)).get() == 4"
    ),
    "multiprocessing.dummy": "from multiprocessing.dummy import Pool\nassert Pool(2).map(abs, [-1]) == [1]",
    "multiprocessing's locks and queues": (
        "import multiprocessing as m\nwith m.Lock(), m.Semaphore(2): pass\nlock = m.RLock()\nwith lock:\n"
        "    with lock: pass\nqueue = m.Queue()\nqueue.put(1)\nassert queue.get(timeout=9) == 1\nevent = m.Event()\n"
        "event.set()\nassert event.wait(1)\npair = m.Pipe()\npair[0].send(1)\nassert pair[1].recv() == 1"
    ),
    "concurrent.futures": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
        "    assert sum(pool.map(abs, range(-50, 0))) == 1275"
    ),
    "asyncio with threads": (
        "import asyncio, time\nasync def wait():\n    await asyncio.to_thread(time.sleep, 0.05)\n    return 1\n"
        "async def both():\n    return await asyncio.gather(wait(), wait())\nassert asyncio.run(both()) == [1, 1]"
    ),
    "threading": (
        "import threading\nfound = []\nthreads = [threading.Thread(target=found.append, args=(i,)) for i in 'abc']\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\nassert len(found) == 3"
    ),
    "a deep stack": (
        "import sys, threading\nthreading.stack_size(64 << 20)\nsys.setrecursionlimit(10 ** 6)\n"
        "def deep(n): return n and 1 + deep(n - 1)\nfound = []\n"
        "t = threading.Thread(target=lambda: found.append(deep(9999)))\nt.start()\nt.join()\nassert found"
    ),
    "a pair of sockets": "import socket\na, b = socket.socketpair()\na.sendall(b'x')\nassert b.recv(1) == b'x'",
    "zoneinfo": "import datetime, zoneinfo\ndatetime.datetime.now(zoneinfo.ZoneInfo('UTC')).astimezone()",
    "time": "import time\ntime.tzset()\ntime.strftime('%c %Z')\ntime.process_time()\ntime.get_clock_info('time')",
    "platform": "import platform\nplatform.uname()\nplatform.platform()\nplatform.architecture()\nplatform.libc_ver()",
    "os": "import os\nos.cpu_count()\nos.getcwd()\nos.uname()\nos.getloadavg()\nos.environ['PATH']\nos.urandom(4)",
    "getpass": "import getpass, pathlib\nassert getpass.getuser() == 'nobody'\npathlib.Path.home()",
    "random sources": "import random, secrets, uuid\nrandom.SystemRandom().random()\nsecrets.token_hex()\nuuid.uuid4()",
    "signal": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.alarm(0)\nsignal.sigpending()",
    "resource": "import resource\nresource.getrusage(resource.RUSAGE_SELF)\nresource.getrlimit(resource.RLIMIT_AS)",
    "sqlite3": "import sqlite3\nassert sqlite3.connect(':memory:').execute('select 1').fetchall() == [(1,)]",
    "subprocess, imported": "import subprocess, multiprocessing, ctypes, socket, ssl, urllib.request, http.server",
    "ctypes": "import ctypes\nassert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)(1) == 2",
    "a file in memory": "import io, tempfile\nio.BytesIO(b'x')\ntempfile.SpooledTemporaryFile().write(b'x')",
    "mimetypes": "import mimetypes\nassert mimetypes.guess_type('a.html')[0] == 'text/html'",
    "unittest": "import doctest, unittest\nunittest.TextTestRunner().run(unittest.TestSuite())",
    "numpy's corners": "import numpy as np, numpy.testing\nnp.ma.array([1])\nnp.linalg.svd(np.eye(3))\nnp.fft.fft([1])",
}

REFUSED = {
    "a file written": "open('x', 'w')",
    "a temporary file": "import tempfile\ntempfile.TemporaryFile()",
    "a folder listed": "import os\nos.listdir('/')",
    "a process": "import subprocess\nsubprocess.run(['true'])",
    "a pool of processes": "import multiprocessing\nmultiprocessing.Pool(2)",
    "executors of processes": "from concurrent.futures import *\nProcessPoolExecutor(2).submit(abs, 1).result()",
    "shared memory": "import multiprocessing\nmultiprocessing.Value('i', 0)",
    "a socket": "import socket\nsocket.socket()",
    "a signal": "import signal\nsignal.raise_signal(signal.SIGUSR1)",
    "a limit set": "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (-1, -1))",
    "standard input": "input()",
}


def job(program: str) -> CheckJob:
    program = f"{program}\ndef f(x): return x + 1"
    return CheckJob(program=program, entry_points=("f",), prelude="", test="assert f(1) == 2")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_harms_nobody_passes(name: str, pool: Pool):
    verdict = pool.check_alone(job(HARMLESS[name]))
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_at_once(name: str, pool: Pool):
    verdict = pool.check_alone(job(REFUSED[name]))
    assert verdict.outcome in ("sandbox_denied", "exception"), verdict


def test_a_recursive_mutex_belongs_to_its_owner():
    lock = thread_semaphore.SemLock(thread_semaphore.RECURSIVE_MUTEX, 1, 1, "", True)
    with pytest.raises(AssertionError):
        lock.release()
    assert lock.acquire()
    assert lock.acquire()
    assert (lock._count(), lock._is_mine(), lock._is_zero()) == (2, True, True)
    others: list[bool] = []
    thread = threading.Thread(target=lambda: others.append(lock.acquire(timeout=0.01)))
    thread.start()
    thread.join()
    assert others == [False]
    lock.release()
    lock.release()
    assert (lock._count(), lock._is_mine(), lock._get_value()) == (0, False, 1)


def test_a_semaphore_counts_and_wakes_who_waits():
    semaphore = thread_semaphore.SemLock(thread_semaphore.SEMAPHORE, 1, 1, "", True)
    with pytest.raises(ValueError, match="too many times"):
        semaphore.release()
    assert semaphore.acquire()
    assert not semaphore.acquire(block=False)
    started = time.monotonic()
    threading.Timer(0.05, semaphore.release).start()
    with semaphore:
        assert 0.04 < time.monotonic() - started < 5
