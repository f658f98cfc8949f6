"""Images for tests, made on this machine from Debian packages: no registry, no `docker build`.

An image is one layer of unpacked packages (no maintainer scripts run; BusyBox gives every image a shell), one
of our own files, and Docker's own configuration. The first layer is kept in the user's cache folder, under a
key of all that it depends on; the rest is put together at each `load`, so that a variant costs nothing:

    load(engine, busybox(), replace(busybox(), name="test/web:2", config={"ExposedPorts": {"80/tcp": {}}}))

Needs apt's package lists (`apt-get update`), dpkg and GNU tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import docker

from tests.support.docker_engine import run


@dataclass(frozen=True)
class Image:
    """What an image is made of.

    name      repository:tag
    packages  Debian packages that are unpacked with all that they depend on
    alone     Debian packages that are unpacked without
    files     path -> content; executable when it starts with `#!`
    links     path -> where that symbolic link leads
    config    the `config` object of Docker's image format: Cmd, Env, ExposedPorts, Volumes, ...
    """

    name: str
    packages: tuple[str, ...] = ("busybox-static",)
    alone: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


class Engines(Protocol):
    """DockerEngine and SwarmCluster."""

    @property
    def node_urls(self) -> Sequence[str]: ...


def load(engines: Engines, *images: Image) -> list[str]:
    """Bring the images to each engine; their IDs (`sha256:...`), the same on all of them."""
    ids = []
    for image in images:
        with tempfile.TemporaryFile() as archive:
            ids.append(_write_archive(image, archive))
            for url in engines.node_urls:
                archive.seek(0)
                client = docker.DockerClient(base_url=url, timeout=300)
                try:
                    client.images.load(archive)
                finally:
                    client.close()
    return ids


def read(image: Image, path: str) -> bytes:
    """A file of the image's packages."""
    with tarfile.open(_packages(image)) as tar:
        file = tar.extractfile(f"./{path}")
        if file is None:
            raise FileNotFoundError(path)
        return file.read()


def busybox() -> Image:
    """2 MB and every small program: httpd, nc, nslookup, sh, wget.

    Debian's build crashes (139) at `wget -T`; `timeout 5 wget` does the same.
    """
    return Image("test/busybox:latest", config={"Cmd": ["sh"]})


def hello() -> Image:
    """A web page on port 80 that names its container and the links that it found."""
    page = r"""#!/bin/sh
printf 'Content-Type: text/html\r\n\r\n<h1>Hello world!</h1>\n<h3>My hostname is %s</h3>\n' "$(hostname)"
env | sed -n 's/^\([A-Z0-9_]*\)_PORT=\(tcp:.*\)/<b>\1<\/b> listening at <a>\2<\/a><br>/p'
"""
    return Image("tutum/hello-world:latest", files=_SITE | {"www/cgi-bin/index.cgi": page}, config=_WEB)


def hits() -> Image:
    """A hit counter on port 80, counting in the service that is linked to it as `redis`."""
    page = r"""#!/bin/sh
answer=$(printf 'INCR hits\r\nQUIT\r\n' | nc -w 5 "$REDIS_PORT_6379_TCP_ADDR" "$REDIS_PORT_6379_TCP_PORT")
case $answer in
:*) printf 'Content-Type: text/plain\r\n\r\nhit %d on %s\n' "$(echo "$answer" | tr -dc 0-9)" "$(hostname)" ;;
*) printf 'Status: 503 No Redis\r\nContent-Type: text/plain\r\n\r\nno answer from redis\n' ;;
esac
"""
    return Image("test/hits:latest", files=_SITE | {"www/cgi-bin/index.cgi": page}, config=_WEB)


def redis() -> Image:
    """A Redis server that keeps its data in the volume /data."""
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--appendonly", "yes"]
    return Image(
        "test/redis:latest",
        packages=("redis-tools", "busybox-static"),
        alone=("redis-server",),  # the program itself is in redis-tools
        config={
            "Cmd": [*command, "--appendfsync", "always"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
    )


def mariadb() -> Image:
    """MariaDB behind the name and environment of Tutum's own database image.

    MYSQL_USER (admin) gets all rights with MYSQL_PASS, which is made up and logged when it is `**Random**`;
    ON_CREATE_DB names a database to create. Both count when the data volume is empty.
    """
    start = r"""#!/bin/sh
set -e
data=/var/lib/mysql init=/run/init.sql
quote() { printf "'%s'" "$(printf %s "$1" | sed "s/[\\\\']/\\\\&/g")"; }
: >$init
chmod 600 $init
if [ ! -e $data/.installed ]; then
    rm -rf $data/*
    mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=normal >/dev/null
    kind=preset
    if [ "$MYSQL_PASS" = '**Random**' ]; then
        kind=random MYSQL_PASS=$(tr -dc A-Za-z0-9 </dev/urandom | head -c 12)
        echo "You can now connect to this MySQL Server using: mysql -u$MYSQL_USER -p$MYSQL_PASS"
    fi
    echo "=> Creating MySQL user $MYSQL_USER with $kind password"
    user="$(quote "$MYSQL_USER")@'%'"
    echo "CREATE USER IF NOT EXISTS $user IDENTIFIED BY $(quote "$MYSQL_PASS");" >>$init
    echo "GRANT ALL PRIVILEGES ON *.* TO $user WITH GRANT OPTION;" >>$init
    [ "$ON_CREATE_DB" = '**False**' ] || echo "CREATE DATABASE IF NOT EXISTS \`$ON_CREATE_DB\`;" >>$init
    # Read by the server last, so that a first start that is killed before it is done begins anew.
    echo "SELECT '' INTO OUTFILE '$data/.installed';" >>$init
fi
chown -R mysql $data $init
exec mariadbd --init-file=$init
"""
    settings = "\n".join(
        [
            "[mysqld]",
            "user = mysql",
            "bind-address = 0.0.0.0",
            "socket = /tmp/mysql.sock",
            "skip-name-resolve",  # nobody may be there to ask, and each connection would wait for it
            "",
        ]
    )
    return Image(
        "tutum/mysql:5.6",
        packages=("mariadb-server-core", "mariadb-client-core", "busybox-static"),
        files={"run.sh": start, "etc/mysql/my.cnf": settings},
        config={
            "Cmd": ["/run.sh"],
            "Env": ["MYSQL_USER=admin", "MYSQL_PASS=**Random**", "ON_CREATE_DB=**False**"],
            "ExposedPorts": {"3306/tcp": {}},
            "Volumes": {"/etc/mysql": {}, "/var/lib/mysql": {}},
        },
    )


def wordpress() -> Image:
    """WordPress on port 80 behind the name and environment of Tutum's own image.

    Its database is the service that is linked as `DB`, else DB_HOST and DB_PORT; the password is DB_PASS, or
    that of the link when DB_PASS is `**ChangeMe**`. The container ends when it cannot connect for a minute.
    """
    database = r"""<?php
function first(...$names) {
    foreach ($names as $name) if ((string) getenv($name) !== '') return getenv($name);
    return '';
}
define('DB_ADDRESS', first('DB_1_PORT_3306_TCP_ADDR', 'DB_PORT_3306_TCP_ADDR', 'DB_HOST'));
define('DB_TCP_PORT', first('DB_1_PORT_3306_TCP_PORT', 'DB_PORT_3306_TCP_PORT', 'DB_PORT'));
define('DB_HOST', DB_ADDRESS . ':' . DB_TCP_PORT);
define('DB_NAME', getenv('DB_NAME'));
define('DB_USER', getenv('DB_USER'));
define('DB_PASSWORD', getenv('DB_PASS') !== '**ChangeMe**' ? getenv('DB_PASS')
    : first('DB_1_ENV_MYSQL_PASS', 'DB_ENV_MYSQL_PASS'));
"""
    create = r"""<?php
require '/database.php';
echo '=> Waiting for the database at ', DB_HOST, "\n";
mysqli_report(MYSQLI_REPORT_OFF);
for ($try = 0; $try < 240; $try++, usleep(250000))
    if ($db = @mysqli_connect(DB_ADDRESS, DB_USER, DB_PASSWORD, '', (int) DB_TCP_PORT)) {
        mysqli_query($db, 'CREATE DATABASE IF NOT EXISTS `' . DB_NAME . '`') or exit(1);
        echo '=> Using database ', DB_NAME, "\n";
        exit(0);
    }
echo 'Cannot connect to MySQL: ', mysqli_connect_error(), "\n";
exit(1);
"""
    config = r"""<?php
require '/database.php';
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
// Every container of the service, under whatever address it is published, is the same site.
define('WP_HOME', 'http://' . $_SERVER['HTTP_HOST']);
define('WP_SITEURL', WP_HOME);
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $name)
    foreach (['KEY', 'SALT'] as $kind)
        define($name . '_' . $kind, hash_hmac('sha256', $name . $kind, DB_PASSWORD));
// Without a way out, each page would wait twenty seconds for an answer.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('FS_METHOD', 'direct');
$table_prefix = 'wp_';
defined('ABSPATH') or define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
"""
    start = r"""#!/bin/sh
php="$(ls /usr/bin/php[0-9]* | head -n 1) -c /php.ini"
$php /create_db.php || exit
PHP_CLI_SERVER_WORKERS=4 exec $php -S 0.0.0.0:80 -t /app
"""
    extensions = ("mysqlnd", "mysqli", "ctype", "tokenizer", "iconv", "fileinfo")
    settings = "".join(f"extension = {name}\n" for name in extensions)
    return Image(
        "tutum/wordpress-stackable:latest",
        packages=("php-cli", "php-mysql", "busybox-static"),
        # Its dependencies would bring a web server of their own.
        alone=(
            "wordpress",
            "wordpress-theme-twentytwentythree",
            "php-getid3",
            "libjs-cropper",
            "libjs-underscore",
            "libjs-prototype",
            "libjs-scriptaculous",
        ),
        files={
            "database.php": database,
            "create_db.php": create,
            "usr/share/wordpress/wp-config.php": config,
            "php.ini": settings,
            "run.sh": start,
        },
        links={"app": "usr/share/wordpress"},
        config={
            "Cmd": ["/run.sh"],
            "Env": [
                "DB_HOST=**LinkMe**",
                "DB_PORT=**LinkMe**",
                "DB_NAME=wordpress",
                "DB_USER=admin",
                "DB_PASS=**ChangeMe**",
            ],
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/app/wp-content": {}},
        },
    )


_SITE = {"www/.keep": ""}
_WEB = {"Cmd": ["httpd", "-f", "-v", "-p", "80", "-h", "/www"], "ExposedPorts": {"80/tcp": {}}}

# What maintainer scripts would have made.
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nmysql:x:100:100::/:/bin/sh\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\nmysql:x:100:\n",
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNUSED = ("doc", "man", "locale", "info", "lintian", "bug")
_FORMAT = 1  # part of the cache's key: raise it when _unpack makes something else of the same packages


def _write_archive(image: Image, archive: IO[bytes]) -> str:
    """Write what `docker load` reads (the layout of `docker save`); the image's ID."""
    packages = _packages(image)
    own = io.BytesIO()
    with tarfile.open(fileobj=own, mode="w") as tar:
        for path, content in sorted((_ACCOUNTS | dict(image.files)).items()):
            mode = 0o755 if content.startswith("#!") else 0o644
            _add(tar, path, content.encode(), mode)
        for path, target in sorted(image.links.items()):
            link = tarfile.TarInfo(path)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    with packages.open("rb") as file:
        layers = [_digest(file), hashlib.sha256(own.getvalue()).hexdigest()]
    environment = [_PATH, *image.config.get("Env", ())]
    config = {
        "architecture": run("dpkg", "--print-architecture").strip(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {**image.config, "Env": environment},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
    }
    text = json.dumps(config, sort_keys=True).encode()
    identity = hashlib.sha256(text).hexdigest()
    manifest = {
        "Config": f"{identity}.json",
        "RepoTags": [image.name],
        "Layers": [f"{digest}/layer.tar" for digest in layers],
    }
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add(tar, "manifest.json", json.dumps([manifest]).encode())
        _add(tar, f"{identity}.json", text)
        _add(tar, f"{layers[1]}/layer.tar", own.getvalue())
        tar.add(packages, f"{layers[0]}/layer.tar")
    return f"sha256:{identity}"


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(content)
    info.mode = mode
    tar.addfile(info, io.BytesIO(content))


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _packages(image: Image) -> Path:
    """The layer of the image's packages: a tar file in the cache, made when it is not there yet."""
    release = platform.freedesktop_os_release()
    system = [release["ID"], release.get("VERSION_ID"), platform.machine()]
    recipe = json.dumps([_FORMAT, system, sorted(image.packages), sorted(image.alone)])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pulumi-tutum" / "images"
    layer = cache / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"
    if not layer.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            made = _unpack(image, Path(work))
            made.replace(layer)  # in one step: another run may be looking
    return layer


def _unpack(image: Image, work: Path) -> Path:
    root, debs = work / "root", work / "debs"
    (debs / "partial").mkdir(parents=True)
    # An empty status file: as if nothing were installed, so that all dependencies are fetched.
    settings = {
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(debs),
        "Dir::Cache::archives": str(debs),
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", "-y", "--no-install-recommends"]
    apt += [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    run(*apt, "--download-only", "install", *image.packages)
    if image.alone:
        subprocess.run([*apt, "download", *image.alone], cwd=debs, check=True, capture_output=True)
    for folder, mode in (("root", 0o700), ("run", 0o755), ("tmp", 0o1777), ("usr", 0o755)):
        (root / folder).mkdir(parents=True)
        (root / folder).chmod(mode)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / folder).mkdir()
        (root / folder).symlink_to(f"usr/{folder}")
    tar = ["tar", "-x", "-C", str(root), "--keep-directory-symlink"]
    tar += [f"--exclude=./usr/share/{folder}" for folder in _UNUSED]
    for deb in sorted(debs.glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as content:
            subprocess.run(tar, stdin=content.stdout, check=True, capture_output=True)
        if content.returncode != 0:
            raise subprocess.CalledProcessError(content.returncode, "dpkg-deb", str(deb))
    busybox = root / "usr/bin/busybox"
    present = {program.name for program in [*busybox.parent.iterdir(), *(root / "usr/sbin").iterdir()]}
    for applet in set(run(str(busybox), "--list").split()) - present:
        (busybox.parent / applet).symlink_to("busybox")
    layer = work / "layer.tar"
    run("tar", "-c", "-C", str(root), "-f", str(layer), "--sort=name", "--mtime=@0", "--numeric-owner", ".")
    return layer
