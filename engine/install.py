"""Leave a Pulumi engine in `.engine/bin`: the CLI and its companions for Python programs.

Three ways, the first that works is taken:

1. the `pulumi` on PATH, when it is new enough and its companions stand beside it or on PATH;
2. Pulumi's official installer, run into the user's cache folder;
3. a build with Go from the pinned modules in `cli/` and `language/`, into the same cache folder.

What 2 or 3 made is found again by every other checkout whose pins are the same, so that only the first one
waits. `.engine/bin` holds links only.

Runs on a bare Python 3.10 (standard library only), before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLI_MODULE, CLI_PACKAGE = "github.com/pulumi/pulumi/pkg/v3", "cmd/pulumi"
# Its sdk/v3 is older than the CLI's: the last published one that still holds the language host.
LANGUAGE_MODULE, LANGUAGE_PACKAGE = "github.com/pulumi/pulumi/sdk/v3", "python/cmd/pulumi-language-python"
# Not programs to build: scripts inside the CLI's own version of sdk/v3.
SCRIPTS = ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python")
# The CLI ends the program of a failed run with SIGINT, and after 5 s by force. A program that waits for the
# engine hears only the second, and the one language host that can be built does not end it either.
MAIN = 'if __name__ == "__main__":\n'
END_AT_ONCE = "import signal\n\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n\n" + MAIN
PROGRAMS = ("pulumi", Path(LANGUAGE_PACKAGE).name, *(Path(script).name for script in SCRIPTS))

# The oldest SDK that the package supports; `refresh --run-program`, which its messages name, is older.
OLDEST_CLI = (3, 216)
# The first Go that fetches by itself the newer Go that a go.mod asks for.
OLDEST_GO = (1, 21)
INSTALLER = "https://get.pulumi.com"
PINS = ("cli/go.mod", "cli/go.sum", "language/go.mod", "language/go.sum")
REPORT_SECONDS = 10.0


class Unavailable(Exception):
    """One way does not work here. The text says why, in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 with the engine in `<into>/bin`, or 1 after one sentence that says what to install."""
    parser = argparse.ArgumentParser(description="Leave a Pulumi engine in .engine/bin.")
    parser.add_argument("--into", type=Path, default=HERE.parent / ".engine", metavar="FOLDER")
    into: Path = parser.parse_args(argv).into.absolute()
    # A plain SIGTERM would skip the clean-up of the temporary folder and leave a compiler running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    if is_ready(into):
        return 0
    try:
        programs = from_path(into / "bin")
    except Unavailable as problem:
        say(str(problem))
        try:
            programs = in_folder(from_cache())
        except Unavailable as problem:
            say(str(problem))
            say(f"no engine: install the Pulumi CLI ({INSTALLER}) or Go 1.25 or newer, and run this again.")
            return 1
    link(programs, into)
    say(f"pulumi {shown(version_of(programs['pulumi']))} from {programs['pulumi'].parent}")
    return 0


def is_ready(into: Path) -> bool:
    """Whether an earlier run with the same pins left links there that still lead somewhere."""
    pins = into / "pins"
    return (
        pins.is_file()
        and pins.read_text(encoding="utf-8") == cache_name()
        and all((into / "bin" / name).exists() for name in PROGRAMS)
    )


def link(programs: Mapping[str, Path], into: Path) -> None:
    """Make `<into>/bin` hold links to these programs, each put there in one step: it may be in use."""
    folder = into / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=into) as new:
        for name, program in programs.items():
            (Path(new) / name).symlink_to(program)
            (Path(new) / name).replace(folder / name)
    (into / "pins").write_text(cache_name(), encoding="utf-8")


# -- the first way: PATH --------------------------------------------------------------------------------


def from_path(own: Path) -> dict[str, Path]:
    """The programs of the `pulumi` on PATH; `own` is our own folder of links, which does not count."""
    search = os.pathsep.join(
        folder for folder in os.get_exec_path() if Path(folder).absolute() != own and Path(folder).is_dir()
    )
    found = shutil.which("pulumi", path=search)
    if found is None:
        raise Unavailable("no pulumi on PATH")
    pulumi = Path(found).absolute()
    version = version_of(pulumi)
    if version < OLDEST_CLI:
        raise Unavailable(
            f"{pulumi} is too old: {shown(version)}, and {shown(OLDEST_CLI)} or newer is needed"
        )
    # Package managers put a link on PATH and leave the companions where it points to.
    beside = os.pathsep.join([str(pulumi.parent), str(pulumi.resolve().parent), search])
    companions = {name: shutil.which(name, path=beside) for name in PROGRAMS[1:]}
    missing = [name for name, program in companions.items() if program is None]
    if missing:
        raise Unavailable(f"{pulumi} comes without {' and '.join(missing)}")
    return {"pulumi": pulumi} | {name: Path(program) for name, program in companions.items() if program}


def version_of(pulumi: Path) -> tuple[int, ...]:
    """What `pulumi version` says: (major, minor, patch)."""
    # Each command writes a log into its home, which would be the user's.
    with tempfile.TemporaryDirectory(prefix="pulumi-tutum-") as home:
        environment = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "1", "PULUMI_HOME": home}
        try:
            answer = subprocess.run(
                [pulumi, "version"], capture_output=True, text=True, timeout=60, env=environment, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError) as problem:
            raise Unavailable(f"{pulumi} does not run: {problem}") from None
    return numbers_in(answer, str(pulumi))


def numbers_in(text: str, program: str) -> tuple[int, ...]:
    """The first version number in a program's answer."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise Unavailable(f"{program} does not tell its version: {text.strip()[:80]!r}")
    return tuple(int(part) for part in found.groups(default="0"))


def shown(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


# -- the cache, and the two ways that fill it -----------------------------------------------------------


def from_cache() -> Path:
    """The folder in the user's cache that holds the programs, made now if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pulumi-tutum" / "engine"
    ready = cache / cache_name()
    if ready.is_dir():
        return ready
    cache.mkdir(parents=True, exist_ok=True)
    with only_one(cache / "lock"):
        if ready.is_dir():
            return ready
        for left_by_a_kill in cache.glob("new-*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=cache))
        try:
            try:
                official(new)
            except Unavailable as problem:
                say(str(problem))
                built(new, ready)
            new.chmod(0o755)
            new.rename(ready)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return ready


def in_folder(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in PROGRAMS}


def cache_name() -> str:
    """Names the version, the kind of machine (a home may be shared) and all that the build is made from."""
    pins = hashlib.sha256(END_AT_ONCE.encode())
    for name in PINS:
        pins.update((HERE / name).read_bytes())
    machine = f"{platform.system()}-{platform.machine()}".lower()
    return f"{pinned(CLI_MODULE, 'cli')}-{machine}-{pins.hexdigest()[:12]}"


def pinned(module: str, folder: str) -> str:
    """The version of `module` in the go.mod of `folder`, without the v."""
    text = (HERE / folder / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"engine/{folder}/go.mod does not require {module}")
    return found[1]


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Wait until no other checkout fills the cache; the lock goes with its holder, however that ends."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another checkout is making the engine; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def official(folder: Path) -> None:
    """Let Pulumi's installer put its programs into `folder`."""
    curl, version = shutil.which("curl"), pinned(CLI_MODULE, "cli")
    if curl is None:
        raise Unavailable("the official installer needs curl")
    work = folder / "work"
    work.mkdir()
    script, log = work / "install.sh", work / "log"
    fetch = [curl, "-fsSL", "--connect-timeout", "5", "--max-time", "60", "-o", str(script), INSTALLER]
    if watch("asking for the official installer", fetch, log):
        raise Unavailable(f"the official installer cannot be had: {last_line(log)}")
    # The private HOME keeps the script away from the user's profile and ~/.pulumi, whatever it does.
    options = ["--no-edit-path", "--install-root", str(work / "pulumi"), "--version", version]
    command = ["/bin/sh", str(script), *options]
    if watch(f"installing pulumi {version}", command, log, os.environ | {"HOME": str(work)}):
        raise Unavailable(f"the official installer failed: {last_line(log)}")
    missing = [name for name in PROGRAMS if not (work / "pulumi" / "bin" / name).is_file()]
    if missing:
        raise Unavailable(f"the official installer left no {' and no '.join(missing)}")
    version_of(work / "pulumi" / "bin" / "pulumi")
    for program in (work / "pulumi" / "bin").iterdir():
        program.rename(folder / program.name)
    shutil.rmtree(work)


def built(folder: Path, ready: Path) -> None:
    """Build the two programs with Go from the pinned modules, and copy the two scripts out of one."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    go = shutil.which("go")
    if go is None:
        raise Unavailable("no go on PATH to build the engine with")
    answer = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    go_version = numbers_in(answer, go)
    if go_version < OLDEST_GO:
        raise Unavailable(f"{go} is too old: {shown(go_version)}, and {shown(OLDEST_GO)} or newer is needed")
    say(f"building it with Go (once; some minutes, and 5 GB in Go's own caches) into {ready}")
    # The user's module and build caches are used, but not the settings that would change the result.
    environment = os.environ | {"CGO_ENABLED": "0", "GO111MODULE": "on", "GOWORK": "off", "GOFLAGS": ""}
    for name in ("GOOS", "GOARCH"):
        environment.pop(name, None)

    for module, package, source in (
        (CLI_MODULE, CLI_PACKAGE, "cli"),
        (LANGUAGE_MODULE, LANGUAGE_PACKAGE, "language"),
    ):
        program, version = Path(package).name, pinned(module, source)
        flags = f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={version}"
        options = ["-v", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags]
        command = [go, "build", *options, "-o", str(folder / program), f"{module}/{package}"]
        log = folder / "log"
        if watch(f"building {program} {version}", command, log, environment, HERE / source):
            raise Unavailable(f"go build of {program} failed: {last_line(log)}")
        log.unlink()

    where = [go, "list", "-m", "-mod=readonly", "-f", "{{.Dir}}", LANGUAGE_MODULE]
    listed = subprocess.run(
        where, cwd=HERE / "cli", env=environment, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise Unavailable(f"go list failed: {listed.stderr.strip()}")
    for script in SCRIPTS:
        text = (Path(listed.stdout.strip()) / script).read_text(encoding="utf-8")
        target = folder / Path(script).name
        target.write_text(text.replace(MAIN, END_AT_ONCE), encoding="utf-8")
        target.chmod(0o755)
    version_of(folder / "pulumi")


# -- telling what goes on -------------------------------------------------------------------------------


def watch(
    what: str,
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> int:
    """Run a command with its output in `log`, showing how long it takes and its last line.

    On a terminal one line is kept up to date, elsewhere a line is printed every ten seconds. Whatever ends
    us ends the command too. Returns its exit code.
    """
    live = sys.stderr.isatty()
    started = time.monotonic()
    told = started
    with log.open("w") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=folder
        )
        try:
            if not live:
                say(what)
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(0.5)
                now = time.monotonic()
                text = f"{what}: {now - started:.0f} s, {last_line(log) or 'started'}"
                if live:
                    width = shutil.get_terminal_size().columns - 1
                    print(f"\r\x1b[K{('engine: ' + text)[:width]}", end="", file=sys.stderr, flush=True)
                elif now - told >= REPORT_SECONDS:
                    told = now
                    say(text)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
            if live:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def say(text: str) -> None:
    print(f"engine: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
