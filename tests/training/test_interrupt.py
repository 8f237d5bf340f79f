import os
import signal
import threading

from tombola.training.interrupt import stop_signals


def test_a_signal_is_noted_and_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as request:
        assert not request.arrived
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.arrived
    assert signal.getsignal(signal.SIGTERM) == before


def test_off_the_main_thread_nothing_is_noted_and_nothing_breaks() -> None:
    seen = []

    def work() -> None:
        with stop_signals() as request:
            seen.append(request.arrived)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
