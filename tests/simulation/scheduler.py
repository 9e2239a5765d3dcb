"""Tasks that take turns: each runs until it waits, and one source of chance says whose turn it is.

A task stands for a thread of a process. It is a greenlet, so that the code of production inside of it needs to know
nothing of it: a pause deep inside a transaction's verb is a switch to the scheduler. Nothing runs at the same time.
"""

from collections.abc import Callable
from random import Random

from greenlet import getcurrent, greenlet

from orchestrator.clock import MachineTime


class Killed(BaseException):
    """Raised through everything that a task does when its process dies. Not an Exception: nothing survives it."""


class Stuck(Exception):
    """The simulation goes on for ever, or nobody is left to go on."""


class Process:
    """What dies together.

    Args:
        offset: What its machine's monotonic clock shows at the beginning.
        is_mortal: Whether chance may kill or pause it.
    """

    def __init__(self, scheduler: "Scheduler", name: str, offset: float, *, is_mortal: bool = True) -> None:
        self.scheduler = scheduler
        self.name = name
        self.is_mortal = is_mortal
        self.is_alive = True
        self.paused_until = 0.0
        self.machine = MachineTime(monotonic=lambda: scheduler.now + offset, sleep=scheduler.sleep)

    def run(self, name: str, function: Callable[[], None], *, after: float = 0.0) -> "Task":
        """Start a task of this process."""
        task = Task(self, f"{self.name}.{name}", function, self.scheduler.now + after)
        self.scheduler.tasks.append(task)
        return task

    def kill(self) -> None:
        """End it. Its tasks go no further, whatever they do; one that kills its own process ends at once."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.scheduler.has_dead = True
        current = self.scheduler.current
        if current is not None and current.process is self:
            raise Killed


class Task:
    """One thread of a process."""

    def __init__(self, process: Process, name: str, function: Callable[[], None], wake_at: float) -> None:
        self.process = process
        self.name = name
        self.wake_at = wake_at
        self.deadline: float | None = None
        self.is_busy = False
        self.is_fresh = False
        self._greenlet = greenlet(function, process.scheduler.home)

    def go_on(self) -> bool:
        """Run until it waits, or has ended; False if it has ended."""
        self._greenlet.switch()
        return not self._greenlet.dead

    def end(self) -> None:
        """Let it see that its process is dead."""
        if self._greenlet:
            self._greenlet.throw(Killed)


class Scheduler:
    """Whose turn it is, and what time.

    Args:
        random: Chooses among the tasks that could go on.
        moved: Told of the time whenever it has passed, in seconds since the beginning.
    """

    def __init__(self, random: Random, moved: Callable[[float], None]) -> None:
        self.now = 0.0
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.home = getcurrent()
        self.turns = 0
        self.has_dead = False
        self._random = random
        self._moved = moved

    def turn(self) -> None:
        """Let one task go on, after letting time pass if none can."""
        if self.has_dead:
            self._bury()
        now = self.now
        able = [task for task in self.tasks if task.wake_at <= now and task.process.paused_until <= now]
        if not able:
            able = self._wait()
        task = able[0] if len(able) == 1 else able[int(self._random.random() * len(able))]
        self.turns += 1
        self.current = task
        try:
            if not task.go_on():
                self.tasks.remove(task)
        except Killed:
            self.tasks.remove(task)
        finally:
            self.current = None

    def _wait(self) -> list[Task]:
        if not self.tasks:
            raise Stuck("nobody is left")
        moments = [max(task.wake_at, task.process.paused_until) for task in self.tasks]
        moment = min(moments)
        if moment == float("inf"):
            raise Stuck("everybody waits for ever")
        self.now = moment
        self._moved(moment)
        return [task for task, at in zip(self.tasks, moments, strict=True) if at <= moment]

    def _bury(self) -> None:
        self.has_dead = False
        for task in [task for task in self.tasks if not task.process.is_alive]:
            self.tasks.remove(task)
            self.current = task
            try:
                task.end()
            except Killed:
                pass
            finally:
                self.current = None

    def sleep(self, seconds: float) -> None:
        """Let the current task wait, and others go on; 0 only lets others go on."""
        self.wait_until(self.now + max(0.0, seconds))

    def wait_until(self, moment: float) -> None:
        """Let the current task wait until a moment, which somebody else may bring forward (`wake_at`)."""
        task = self.current
        if task is None:
            return  # the simulation itself looks at something
        if not task.process.is_alive:
            raise Killed
        task.wake_at = moment
        self.home.switch()
        if not task.process.is_alive:
            raise Killed

    def close(self) -> None:
        """End all tasks."""
        while self.tasks:
            for task in self.tasks:
                task.process.is_alive = False
            self._bury()
