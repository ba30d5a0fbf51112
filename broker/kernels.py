"""Messages to `kernel/NAME`: weighed, submitted as matrices, answered as runs.

*Rules of this file*: a call needs EXECUTE on the kernel (weighed by the session) and WRITE on its
response topic, weighed here at the call and again when the result is released, so a revoked grant
also stops what is under way. Every call that fails after that is answered on the response topic
with the user properties `status=error` and `error`. Answers are QoS 0. A caller has at most
`MAX_OPEN_CALLS` calls under way; beyond that it is not read from.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from broker.admission import Refusal
from broker.calls import Call, answers, calls_of_run, failures, verify_response_topic
from broker.guard import Asker
from gpu.errors import KernelBusy, KernelFault, PayloadRefused, UnknownKernel
from mqtt.errors import ReasonCode, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.calls import Bytes
    from broker.guard import Guard
    from broker.outlet import Outlet
    from broker.router import Router
    from mqtt.runs import Run

log = structlog.get_logger("stockade.broker.kernels")

KERNEL_PREFIX = b"kernel/"
MAX_OPEN_CALLS = 64  # runs or single messages of one session under way; more are not read


class CallBook:
    """The open calls of one session: bounded, their answers in the order the batches end."""

    __slots__ = ("answers", "idle", "open", "releasing", "room")

    def __init__(self, idle: Callable[[], None]) -> None:
        """Start with none.

        Args:
            idle: called whenever no call is open any more.
        """
        self.room = trio.Semaphore(MAX_OPEN_CALLS, max_value=MAX_OPEN_CALLS)
        self.answers: deque[tuple[str, Run]] = deque()
        self.releasing = False
        self.open = 0
        self.idle = idle

    async def opened(self) -> None:
        """Take room for one call, waiting for it; calls end within the kernels' deadlines."""
        await self.room.acquire()
        self.open += 1

    def closed(self) -> None:
        """Give the room back."""
        self.open -= 1
        self.room.release()
        if not self.open:
            self.idle()


class Caller(Asker, Protocol):
    """A session, as kernel dispatch sees it."""

    @property
    def calls(self) -> CallBook:
        """Its open calls."""
        ...


class Pool(Protocol):
    """The kernels: `gpu.pool.KernelPool`."""

    async def submit(
        self, name: str, payloads: Bytes, done: Callable[[Bytes | KernelFault], None]
    ) -> None:
        """Queue payloads; `done` is called once with the results or a fault, unless this raises."""
        ...


class KernelDispatch:
    """From sessions to the kernel pool and back.

    Attributes:
        answered: calls answered with a result.
        failed: calls answered with an error.
        refused: calls dropped because they named no usable response topic or were denied it.
    """

    def __init__(self, pool: Pool, guard: Guard, router: Router) -> None:
        """Connect the pool with the policy and the subscribers."""
        self._pool = pool
        self._guard = guard
        self._router = router
        self._nursery: trio.Nursery | None = None
        self.answered = 0
        self.failed = 0
        self.refused = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Release answers for as long as the broker lives."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def call_run(self, caller: Caller, run: Run) -> Refusal | None:
        """Every call in a run of requests; EXECUTE was weighed by who publishes.

        Returns:
            None once all requests are in batches, else what the acknowledgement must say of the run.
        """
        name = run.topic[len(KERNEL_PREFIX) :].decode()
        refusal: Refusal | None = None
        for call in calls_of_run(run):
            refusal = await self._call(caller, name, call) or refusal
        return refusal

    async def _call(self, caller: Caller, name: str, call: Call) -> Refusal | None:
        try:
            topic = verify_response_topic(call.response_topic)
        except RemoteProtocolError as error:
            self.refused += call.count
            # Counted above; not for the operator's log, which a caller in a loop would fill.
            log.debug(
                "kernel call refused",
                principal=caller.principal.name,
                kernel=name,
                reason=str(error),
            )
            return Refusal(reason=ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, text=error.message)
        decision = await self._guard.may_publish(caller, topic.encode(), count=call.count)
        if not decision.allowed:
            self.refused += call.count
            return Refusal(
                reason=ReasonCode.NOT_AUTHORIZED, text=f"not authorized, decision {decision.id}"
            )
        await caller.calls.opened()
        try:
            await self._pool.submit(name, call.payloads, self._on_done(caller, topic, call))
        except (UnknownKernel, PayloadRefused, KernelBusy) as error:
            self._answer(caller, topic, call, error)
            return _refusal(error)
        except BaseException:
            caller.calls.closed()
            raise
        return None

    def _on_done(
        self, caller: Caller, topic: str, call: Call
    ) -> Callable[[Bytes | KernelFault], None]:
        def done(outcome: Bytes | KernelFault) -> None:
            self._answer(caller, topic, call, outcome)

        return done

    def _answer(self, caller: Caller, topic: str, call: Call, outcome: Bytes | Exception) -> None:
        """Build the answers at once (the result is only valid now) and have them released.

        Never raises: it runs inside the kernel's lane, which serves other callers too.
        """
        book = caller.calls
        try:
            if isinstance(outcome, Exception):
                self.failed += call.count
                run = failures(topic, call.correlations, str(outcome))
            else:
                self.answered += call.count
                run = answers(topic, call.correlations, outcome)
        except Exception as error:  # noqa: BLE001  contained: the lane serves others too
            text = f"{type(error).__name__}: {error}"
            log.error("kernel answer impossible", topic=topic, error=text)  # noqa: TRY400  one line
            book.closed()
            return
        book.answers.append((topic, run))
        if not book.releasing and self._nursery is not None:
            book.releasing = True
            self._nursery.start_soon(self._release, caller)

    async def _release(self, caller: Caller) -> None:
        """Send what waits for one caller, in order; ends when nothing waits."""
        book = caller.calls
        try:
            while book.answers:
                topic, run = book.answers.popleft()
                try:
                    await self._release_one(caller, topic.encode(), run)
                except Exception as error:  # noqa: BLE001  contained: this nursery is the daemon's
                    text = f"{type(error).__name__}: {error}"
                    log.error("kernel answer lost", topic=topic, error=text)  # noqa: TRY400  one line
                finally:
                    book.closed()
        finally:
            book.releasing = False

    async def _release_one(self, caller: Caller, topic: bytes, run: Run) -> None:
        decision = await self._guard.may_publish(caller, topic, count=run.count)
        if not decision.allowed:
            return
        touched: list[Outlet] = []
        route = await self._router.route(topic)
        self._router.deliver_run(route, run, None, caller.principal.name, touched)
        for outlet in touched:
            outlet.flush_now()
        since = trio.current_time()
        for outlet in touched:
            if outlet.over_full:
                await outlet.wait_for_room(since)


def _refusal(error: UnknownKernel | PayloadRefused | KernelBusy) -> Refusal:
    """What PUBACK says of a call that could not be submitted."""
    match error:
        case UnknownKernel():
            return Refusal(reason=ReasonCode.TOPIC_NAME_INVALID, text=str(error))
        case PayloadRefused():
            return Refusal(reason=ReasonCode.PAYLOAD_FORMAT_INVALID, text=str(error))
        case KernelBusy():
            return Refusal(reason=ReasonCode.QUOTA_EXCEEDED, text=str(error))
