"""What every engine's process does: listen on loopback, and die with its parent.

The parent holds the other end of standard input and never writes to it.
However the parent ends, the pipe closes, and so no engine outlives its tests.
"""

import os
import socket
import threading

_BACKLOG = 1024


def listen() -> socket.socket:
    """A socket listening on a free loopback port.

    Connections queue from here on, so a caller that knows the port need not retry.
    """
    return socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)


def announce(port: int) -> None:
    """Tell the parent the port; whatever is printed afterwards goes to standard error.

    The parent reads standard output once, so later prints would fill the pipe.
    """
    print(port, flush=True)  # noqa: T201 - this line is the message to the parent
    os.dup2(2, 1)


def exit_with_parent() -> None:
    """End this process as soon as standard input reaches its end."""
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
