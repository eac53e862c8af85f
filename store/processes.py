"""Worker processes that do not outlive the process that started them."""

import os
import threading
import time

POLL_S = 0.2


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent was killed: a worker holds both ends of its queue, so it would wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
