"""The sandbox for commands on this host: bubblewrap and, if the portal runs as root, another user.

A command can read the programs and libraries of the system, the folders in PATH, and paths that the
operator lists. It has its own processes, /tmp and home folder, and shares the network of the host.
It cannot see the portal's processes, database and keys, and other commands.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import pwd
import resource
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from portal.upstream import folders

log = logging.getLogger("portal.upstream")
HOME = "/home/command"
NOBODY = "nobody"
DOCUMENTED = "docs/deployment.md, Commands (stdio)"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_ETC = (
    "alternatives",
    "ca-certificates",
    "gai.conf",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "timezone",
)
_PASSED_ON = ("PATH", "LANG")
_CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_ADDRESSES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "PIP_INDEX_URL",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
)
_OTHERS = ("NO_PROXY", "no_proxy", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS")
_GONE = "gone-"
_MIB = 1024 * 1024
TMP_BYTES = 512 * _MIB
LIMITS = {"core": 0, "nproc": 512, "nofile": 4096, "fsize": 1024 * _MIB, "data": 4096 * _MIB}
HOME_BYTES = 2048 * _MIB
HOME_FILES = 200_000
"""Limits of a persistent home folder. If exceeded, the command is ended and the folder deleted."""
_PROBE_SECONDS = 10.0
_REMEDY = f"See {DOCUMENTED}."
_PROBE_AGAIN = 60.0  # seconds before an unavailable sandbox is tested again
_GO_HOME = 'cd "$HOME" && exec "$@"'
# Exits with 0 only if none of the given files are visible, and only processes of the sandbox.
_LOOK = 'for f; do [ ! -f "$f" ] || exit 7; done; set -- /proc/[0-9]*; [ $# -le 5 ] || exit 8'


@dataclass(frozen=True)
class Launch:
    """How to start a command: arguments, environment, and persistent home folder."""

    argv: list[str] = field(repr=False)
    env: dict[str, str] = field(repr=False)
    home: Path | None = None

    def overfills_home(self) -> bool:
        """Return whether its home folder exceeds the limits. Reads the whole folder."""
        return self.home is not None and _is_beyond(self.home, HOME_BYTES, HOME_FILES)

    def delete_home(self) -> None:
        """Delete its home folder. The next start creates a new one."""
        if self.home is not None:
            with contextlib.suppress(OSError):  # tried again at the next start of the command
                _forget(self.home)


class NoSandbox(Exception):
    """Commands cannot run on this host. The message has cause and remedy for an Admin."""


class Sandbox:
    """The sandbox for commands.

    `user` runs the commands if the portal runs as root. `homes` is the folder for persistent home
    folders of saved servers; without it, they are in memory. `readable` are additional paths that
    commands may read. `hidden` are files and folders of the portal, which commands cannot see.
    `variables` are names of environment variables of the portal that commands also receive.
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        homes: Path | None = None,
        readable: Sequence[str] = (),
        hidden: Sequence[Path] = (),
        variables: Sequence[str] = (),
    ) -> None:
        self._user = user
        self._homes = homes
        self._variables = tuple(variables)
        self._readable = tuple(Path(path) for path in readable)
        self._hidden = tuple(Path(os.path.realpath(path)) for path in hidden)
        self._known_mounts: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._tried_at: float | None = None
        self._refusal = ""

    def refusal(self) -> str:
        """Return why commands cannot run, with a remedy, or "".

        The sandbox is tested once per process. If it failed, it is tested again after one minute.
        """
        with self._lock:
            is_old = time.monotonic() > (self._tried_at or 0) + _PROBE_AGAIN
            if self._tried_at is None or (self._refusal and is_old):
                try:
                    self._try()
                    self._refusal = ""
                except NoSandbox as error:
                    self._refusal = str(error)
                self._tried_at = time.monotonic()
            return self._refusal

    @property
    def user(self) -> str:
        """Return name and UID of the user that runs commands. Raises `NoSandbox`."""
        found = self._account()
        return (
            f"{found.pw_name} (uid {found.pw_uid})"
            if found
            else f"{_own_name()} (uid {os.geteuid()})"
        )

    @property
    def separate(self) -> bool:
        """Return whether commands run as another user than the portal."""
        return os.geteuid() == 0

    def keeps_homes(self) -> bool:
        """Return whether home folders of servers are persistent."""
        try:
            return self._home("doctor", ()) is not None
        except NoSandbox:
            return False

    def launch(self, argv: Sequence[str], env: Mapping[str, str], *, home: str = "") -> Launch:
        """Return how to start `argv`, which begins with an absolute path, with the variables `env`.

        `home` is the name of a persistent home folder for exactly this `argv`. For another command,
        a new one is created and the old one deleted. Without a name, it is in memory. Raises
        `NoSandbox`.
        """
        bwrap = _program("bwrap", "bubblewrap")
        prlimit = _program("prlimit", "util-linux")
        account = self._account()
        kept = self._home(home, argv) if home else None
        mounts = self._mounts(argv[0], prlimit)
        memory = [_in_memory(path) for path in ("/tmp", "/dev/shm", *(() if kept else (HOME,)))]  # noqa: S108
        # As root, the sandbox is created as root, so that it can use paths that only root can read.
        # The privileges are dropped inside. For other users, bubblewrap creates a user namespace
        # anyway, unless it is installed setuid root; then it has to be requested.
        rights = ["--unshare-user"]
        become = list[str]()
        if account is not None:
            ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            # Bubblewrap itself sees to it that nothing gains new rights (no_new_privs).
            become = [_program("setpriv", "util-linux"), *ids, "--inh-caps=-all", "--"]
            rights = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        full = [
            bwrap,
            *rights,
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--die-with-parent",
            "--new-session",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            *(word for words in memory for word in words),
            *mounts,
            *(("--bind", str(kept), HOME) if kept else ()),
            "--remount-ro",
            "/",
            "--",
            *become,
            _program("sh", "dash"),
            "-c",
            _GO_HOME,
            "sh",
            prlimit,
            *_limits(),
            "--",
            *argv,
        ]
        return Launch(full, self._environment() | dict(env), kept)

    def _try(self) -> None:
        if sys.platform != "linux":
            raise NoSandbox(
                "The sandbox for commands requires Linux. Connect to this server over HTTP instead."
            )
        if inside := next(
            (str(path) for path in self._readable for own in self._hidden if _within(path, [own])),
            None,
        ):
            raise NoSandbox(
                f"PORTAL_STDIO_PATHS contains {inside}, which has data of the portal. Remove it."
            )
        _program("bwrap", "bubblewrap")
        seen = [str(path) for path in self._hidden if path.exists() and not path.is_dir()]
        seen += [
            str(inner) for path in self._hidden if path.is_dir() for inner in _first_files(path)
        ]
        launch = self.launch([_program("sh", "dash"), "-c", _LOOK, "sh", *seen], {})
        try:
            ended = subprocess.run(  # noqa: S603 - a fixed script, in the sandbox
                launch.argv,
                env=launch.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_PROBE_SECONDS,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NoSandbox(
                f"The sandbox for commands cannot be created ({type(error).__name__}). {_REMEDY}"
            ) from None
        if ended.returncode == 7:
            raise NoSandbox(
                "Commands would see files of the portal. Keep its data outside of the folders in"
                " PATH."
            )
        if ended.returncode:
            said = ended.stderr.decode(errors="replace").strip().splitlines()
            why = f"exit status {ended.returncode}"
            if said:
                why = said[0].removeprefix("bwrap: ")[:200]
            raise NoSandbox(f"The sandbox for commands cannot be created ({why}). {_REMEDY}")

    def _account(self) -> pwd.struct_passwd | None:
        """Return the account that runs commands, or None for the portal's. Raises `NoSandbox`."""
        if os.geteuid() != 0:
            if self._user is None or self._user == _own_name():
                return None
            raise NoSandbox(
                "PORTAL_STDIO_USER works only if the portal runs as root. Remove it to run commands"
                " in a sandbox as the portal’s own user."
            )
        name = self._user or NOBODY
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            raise NoSandbox(
                f"The user {name} does not exist on this host. Create it, or set PORTAL_STDIO_USER."
            ) from None
        if account.pw_uid == 0:
            raise NoSandbox(
                f"Commands cannot run as {name}, which is root. Set PORTAL_STDIO_USER to another"
                " user."
            )
        return account

    def _home(self, name: str, argv: Sequence[str]) -> Path | None:
        """Return the persistent home folder of `name` for `argv`, or None if not possible.

        Creates it if missing, and deletes those of `name` for other commands.
        """
        account = self._account()
        homes = self._homes.absolute() if self._homes else None
        if homes is None:
            return None
        of_name = homes / _digest(name)
        own = of_name / f"of-{_digest(json.dumps(list(argv)))}"
        try:
            homes.mkdir(mode=0o700, parents=True, exist_ok=True)
            of_name.mkdir(mode=0o700, exist_ok=True)
            for other in of_name.iterdir():
                if other != own:
                    _forget(other)
            own.mkdir(mode=0o700, exist_ok=True)
            if account is not None:
                os.chown(own, account.pw_uid, account.pw_gid, follow_symlinks=False)
        except OSError:
            return None
        return own

    def forget_homes(self, known: Sequence[str]) -> int:
        """Delete the home folders of all other names, and return the number of deleted folders.

        Also deletes folders that could not be deleted before.
        """
        if self._homes is None or not self._homes.is_dir():
            return 0
        kept = {_digest(name) for name in known}
        left = [path for path in self.left_homes() if path.parent.name in kept]
        return sum(
            _forget(path) for path in (*left, *self._homes.iterdir()) if path.name not in kept
        )

    def left_homes(self) -> list[Path]:
        """Return the unused home folders that could not be deleted."""
        if self._homes is None or not self._homes.is_dir():
            return []
        return [*self._homes.glob(f"{_GONE}*"), *self._homes.glob(f"*/{_GONE}*")]

    def _environment(self) -> dict[str, str]:
        """Return the portal's variables that commands receive, which contain no secrets.

        They are for programs, certificates and package registries.
        """
        names = (*_PASSED_ON, *_CERTIFICATES, *_OTHERS, *self._variables)
        found = {name: os.environ[name] for name in names if name in os.environ}
        found |= {
            name: os.environ[name]
            for name in _ADDRESSES
            if name in os.environ and _is_open(os.environ[name])
        }
        return {**found, "HOME": HOME}

    def _mounts(self, *programs: str) -> tuple[str, ...]:
        """Return the mounts of the sandbox, including those that hide paths, cached by program."""
        surroundings = tuple(os.environ.get(name, "") for name in ("PATH", *_CERTIFICATES))
        if (known := self._known_mounts.get((programs, surroundings))) is not None:
            return known
        folders = [
            Path(folder)
            for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
            if folder
        ]
        wanted = [path for folder in folders for path in _installed_at(folder)]
        wanted += [
            path
            for program in programs
            for hop in _hops(Path(program))
            for path in _installed_at(hop.parent)
        ]
        wanted += [Path(os.environ[name]) for name in _CERTIFICATES if name in os.environ]
        steps: dict[Path, list[str]] = {}
        for path in [Path(path) for path in _SYSTEM] + [Path("/etc") / name for name in _ETC]:
            if path.is_symlink() and path.parent == Path("/"):
                steps[path] = ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                steps[path] = ["--ro-bind", os.path.realpath(path), str(path)]
        shown = [path for path in steps if not path.is_symlink()]
        for path in (*wanted, *self._readable):
            is_shown = _within(path, shown) and not _within(path, self._hidden)
            if path.is_absolute() and path.exists() and not is_shown:
                steps[path] = ["--ro-bind", str(path), str(path)]
                shown.append(path)
        for path in (path for path in self._hidden if path.exists()):
            for folder in shown:
                if _within(path, [folder]):
                    place = folder / path.relative_to(os.path.realpath(folder))
                    steps[place] = (
                        ["--tmpfs", str(place)]
                        if path.is_dir()
                        else ["--ro-bind", os.devnull, str(place)]
                    )
        for parent in {parent for path in (*steps, Path(HOME)) for parent in path.parents} - {
            Path("/")
        }:
            if parent not in steps and not _within(parent, shown):
                steps[parent] = ["--dir", str(parent)]
        ordered = sorted(steps, key=lambda path: len(path.parts))  # folders before their content
        found = self._known_mounts[programs, surroundings] = tuple(
            word for path in ordered for word in steps[path]
        )
        return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _forget(path: Path) -> bool:
    """Delete a home folder, and return whether it was deleted.

    It is renamed first, so that it is never used again. Raises `OSError` if it cannot be renamed.
    """
    if not path.name.startswith(_GONE):
        path = path.rename(path.with_name(f"{_GONE}{secrets.token_hex(16)}"))
    try:
        folders.remove(path)
    except OSError as error:
        log.warning(
            "could not delete the unused home folder %s of a command (%s)",
            path,
            error.strerror,
        )
        return False
    return True


def _is_beyond(folder: Path, most_bytes: int, most_files: int) -> bool:
    """Return whether a folder has more bytes on disk, or more files."""
    files = 0
    taken = 0
    waiting = [folder]
    while waiting:
        # The folder may have been deleted in the meantime.
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    files = files + 1
                    taken = taken + entry.stat(follow_symlinks=False).st_blocks * 512
                    if files > most_files or taken > most_bytes:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
    return False


def _in_memory(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", path]


def _program(name: str, package: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}{os.defpath}")
    if path is None:
        raise NoSandbox(
            f"The sandbox for commands requires {package}. Install it (apt-get install {package})."
        )
    return path


def _limits() -> Iterator[str]:
    for name, wanted in LIMITS.items():
        most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        yield f"--{name}={wanted if most == resource.RLIM_INFINITY else min(wanted, most)}"


def _installed_at(folder: Path) -> list[Path]:
    """Return a folder of programs and its libraries, without the rest, which may be private."""
    if folder.name == "shims":  # of pyenv, asdf and mise, which start programs in the parent folder
        return [folder.parent]
    if folder.name not in ("bin", "sbin"):
        return [folder]
    return [folder, *(folder.parent / name for name in ("lib", "lib64", "pyvenv.cfg"))]


def _hops(program: Path) -> Iterator[Path]:
    """Yield a program and the targets of its links, step by step."""
    for _ in range(16):
        yield program
        if not program.is_symlink():
            return
        program = Path(os.path.normpath(program.parent / program.readlink()))


def _within(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether `path` is one of `folders` or inside one, after resolving links."""
    real = os.path.realpath(path)
    return any(
        real == folder or real.startswith(f"{folder.rstrip('/')}/")
        for folder in map(os.path.realpath, folders)
    )


def _first_files(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_file())[:8]
    return []


def _is_open(address: str) -> bool:
    """Return whether a URL has no user name and password."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        return parts.username is None and parts.password is None
    except ValueError:
        return False


@functools.cache
def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "the portal’s user"
