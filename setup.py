"""Metadata of the package (the settings of the tools are in pyproject.toml)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "pulumi_tutum" / "__init__.py").read_text(encoding="utf-8")

# Read as text: an import would need the dependencies that this file is about to declare.
VERSION_LINE = re.search(r'^__version__ = "([^"]+)"', INIT, re.MULTILINE)
if VERSION_LINE is None:
    raise RuntimeError("pulumi_tutum/__init__.py has no __version__")

SERVER = [
    "anyio>=4.4",
    "starlette>=0.40",
    "uvicorn>=0.45",
    "httptools>=0.6.1",
    "uvloop>=0.19; platform_python_implementation == 'CPython' and sys_platform == 'linux'",
    "websockets>=13",
    "click>=8.1",
    "rich>=13",
]
DOCKER = [*SERVER, "docker>=7.1"]

setup(
    name="pulumi-tutum",
    version=VERSION_LINE[1],
    description="Tutum's service model, declared in Python with Pulumi, and a control plane that serves it",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["pulumi_tutum", "pulumi_tutum.*"]),
    # pulumi-plugin.json tells Pulumi that there is no plugin to download for this package.
    package_data={"pulumi_tutum": ["py.typed", "pulumi-plugin.json"]},
    install_requires=["pulumi>=3.216,<4", "requests>=2.28", "websocket-client>=1.6"],
    extras_require={"server": SERVER, "docker": DOCKER},
    entry_points={"console_scripts": ["pulumi-tutum = pulumi_tutum.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Software Development :: Build Tools",
        "Topic :: System :: Systems Administration",
        "Typing :: Typed",
    ],
)
