"""What is held back on standard error."""

import os
import threading
import time

from siamese_keras.terminal import held_stderr


def test_two_threads_leave_standard_error_as_it_was():
    def hold(seconds):
        with held_stderr():
            time.sleep(seconds)

    before = os.fstat(2).st_ino
    threads = [threading.Thread(target=hold, args=(seconds,)) for seconds in (0.1, 0.2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert os.fstat(2).st_ino == before
