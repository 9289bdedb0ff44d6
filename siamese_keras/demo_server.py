"""The server of `siamese-keras demo`.

Gradio and Uvicorn are imported only when it starts, since they are an extra.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamese_keras.demo_html import CSS
from siamese_keras.demo_page import Demo, build_page, write_examples
from siamese_keras.errors import ArgumentError
from siamese_keras.progress import progress_line

if TYPE_CHECKING:
    from siamese_keras.verifier import Verifier

_PORT = 7860  # Gradio's
_MAX_FILE_SIZE = "20mb"


def check_gradio() -> None:
    """Raise `ArgumentError` when Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ArgumentError(
            "The demo needs the package gradio. In a clone of the repository: "
            "pip install -e '.[demo]'"
        )


def serve(
    verifier: Verifier,
    gallery: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
) -> None:
    """Serve the page until the process is interrupted or told to end (SIGINT, SIGTERM).

    It must run in the main thread. Uploads lie in a temporary folder, which is deleted in the end.

    Args:
        verifier: The model.
        gallery: Folder or index to search. Without it a model of Fashion-MNIST searches test
            images, if they are on this machine.
        host: Address to listen on.
        port: Port to listen on; None is 7860, or a free one when that is in use.
        open_browser: Open the page in a browser.

    Raises:
        ArgumentError: When the address cannot be listened on.
        ModelError: When the model is a server, or the index is of another model.
        DataError: When the gallery cannot be read.
    """
    with _listen(host, port) as listener, tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # which Gradio reads when it is imported, too
        app = _make_app(verifier, gallery, Path(folder))
        _run(app, listener, page_url(*listener.getsockname()[:2]), open_browser=open_browser)


def page_url(host: str, port: int) -> str:
    """Return the address that a browser of this machine opens for one that is listened on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # all addresses of this machine
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _make_app(verifier: Verifier, gallery: Path | None, folder: Path) -> Any:
    """Return the page as an ASGI application.

    Args:
        verifier: The model.
        gallery: Folder or index to search.
        folder: Folder for examples.
    """
    import gradio as gr
    from fastapi import FastAPI

    examples_folder = folder / "examples"
    examples_folder.mkdir()
    examples = []
    if verifier.config is not None and verifier.config.dataset == "fashion_mnist":
        examples = write_examples(examples_folder)
    source = gallery or (examples_folder if examples else None)
    opened = None
    if source is not None:
        opened = verifier.open_gallery(source, progress=progress_line("images"))
    return gr.mount_gradio_app(
        FastAPI(), build_page(Demo(verifier, opened), examples), "/", theme=_theme(gr), css=CSS,
        max_file_size=_MAX_FILE_SIZE, footer_links=[], run_history=False, ssr_mode=False,
        pwa=False, enable_monitoring=False, mcp_server=False,
    )  # fmt: skip


def _run(app: Any, listener: socket.socket, url: str, *, open_browser: bool) -> None:
    """Serve until a signal comes; say where the page is."""
    import uvicorn

    mounted = app.routes[-1].app  # Gradio's own

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            mounted.stop_event.set()  # ends the streams of open pages, which it waits for
            await super().shutdown(sockets)

    server = Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))

    def stop(*_: object) -> None:
        server.should_exit = True

    # Uvicorn handles these while it runs, and then raises what it has received once more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    print(f"The page is at {url} - press Ctrl-C to end.", flush=True)
    if open_browser:
        # A browser in the terminal would be waited for before the server runs.
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    server.run(sockets=[listener])


def _theme(gr: Any) -> Any:
    """Return a theme with the system's fonts, and notes dark enough to be read."""
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(body_text_color_subdued="*neutral_600", block_info_text_color="*neutral_600")


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem = None
    for candidate in (_PORT, 0) if port is None else (port,):
        try:
            return socket.create_server((host, candidate), family=family)
        except OSError as error:
            problem = error
    raise ArgumentError(
        f"The demo cannot listen on {host}, port {port or _PORT}: {problem and problem.strerror}"
    )
