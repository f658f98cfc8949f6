"""Declares the resources that the environment variable PROBE says: a JSON object, name -> inputs."""

import json
import os

import pulumi
from probe import Probe  # type: ignore[import-not-found]  # beside this file when it runs

for name, inputs in json.loads(os.environ["PROBE"]).items():
    secret = pulumi.Output.secret("hush-hush")
    Probe(
        name,
        {"nested": {"plain": "seen", "secret": secret}, "listed": ["x", secret], **inputs},
        pulumi.ResourceOptions(
            custom_timeouts=pulumi.CustomTimeouts(create="7m", update="90s", delete="30s"),
            ignore_changes=["ignored"],
            additional_secret_outputs=["derived"],
        ),
    )
