"""When services became Running, by an independent witness: `python -m bench.observer STREAM AUTHORIZATION`.

Listens to the events and prints a line for each service that became Running: its resource URI and the time of
the system's monotonic clock, which all processes of a machine share. The line `ready` comes first.
"""

from __future__ import annotations

import json
import sys
import time

from websockets.sync.client import connect


def main() -> None:
    stream, authorization = sys.argv[1:]
    with connect(f"{stream}/v1/events", additional_headers={"Authorization": authorization}) as events:
        print("ready", flush=True)
        for message in events:
            now = time.monotonic()
            event = json.loads(message)
            if event.get("type") == "service" and event.get("state") == "Running":
                print(event["resource_uri"], now, flush=True)


if __name__ == "__main__":
    main()
