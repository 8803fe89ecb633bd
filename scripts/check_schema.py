"""`alembic check` on a scratch embedded PostgreSQL: do the migrations make the tables the code declares?"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from app.db import check_schema, migrate
from app.embedded.postgres import EmbeddedPostgres


def main() -> None:
    warnings.filterwarnings("ignore", message=".*operator clause.*")  # alembic cannot compare text_pattern_ops
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # as root the server runs as another user
        server = EmbeddedPostgres(Path(folder), options={"fsync": "off", "shared_buffers": "32MB"}).start()
        try:
            migrate(server.url())
            check_schema(server.url())
        finally:
            server.stop()


if __name__ == "__main__":
    main()
