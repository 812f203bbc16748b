# SPDX-License-Identifier: GPL-2.0-only
"""`vcs`: finds the verb and imports only that one, so that a command starts quickly."""

from __future__ import annotations

import importlib
import os
import sys

import click

from vcs import __version__
from vcs.errors import ConfigError, VcsError

COMMANDS: dict[str, tuple[str, str]] = {
    "status": ("vcs.cli.status", "The cluster as this node sees it."),
    "nodes": ("vcs.cli.nodes", "Every node and its state."),
    "groups": ("vcs.cli.groups", "Every group that this node is in."),
    "ring": ("vcs.cli.ring", "The engine's ring: links, tokens, and why it changed."),
    "why": ("vcs.cli.why", "What is waited for, on whom, and the remedy."),
    "metrics": ("vcs.cli.metrics", "The state of this node as Prometheus metrics."),
    "events": ("vcs.cli.events", "What happened on this node."),
    "wait": ("vcs.cli.wait", "Until file systems can be mounted on this node."),
    "quorum": ("vcs.cli.quorum", "Votes, who is missing, and why there is no quorum."),
    "maintenance": ("vcs.cli.maintenance", "Freeze fencing and resets for a limited time."),
    "shutdown": ("vcs.cli.shutdown", "Shut the whole cluster down in order."),
    "leave": ("vcs.cli.leave", "Leave the cluster cleanly."),
    "fence": ("vcs.cli.fence", "Fence a node, or vouch for one that is off."),
    "failover": ("vcs.cli.failover", "How long the last failovers took, phase by phase."),
    "witness": ("vcs.cli.witness", "Decide, from outside, which half of the nodes goes on."),
    "config": ("vcs.cli.config", "Check or show cluster.toml."),
    "heartbeat": ("vcs.cli.heartbeat", "Membership from the kernel alone, without vcsd."),
    "keygen": ("vcs.cli.keygen", "Make the shared key of a cluster."),
}
"Verb -> (module, one line of help). Each module has one click command of the verb's name with an underscore behind it."


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), f"{cmd_name}_")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, from the table: nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vcs", message="%(prog)s %(version)s")
def cli() -> None:
    """The Virtual Cluster Switch: look at this node's cluster and act on it.

    Commands that only look work without vcsd, by what the kernel holds. Every command has --json.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run `vcs`. Every VcsError becomes one line (a ConfigError: all its lines) on stderr and the exit code of its class."""
    try:
        code = cli.main(arguments, prog_name="vcs", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort as abort:
        interrupted = isinstance(abort.__cause__, KeyboardInterrupt)  # as click reports Ctrl-C; else a question was not answered by yes
        code = 130 if interrupted else 1
        if not interrupted:
            click.echo("vcs: not confirmed", err=True)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except ConfigError as error:
        click.echo("\n".join(error.problems), err=True)
        code = error.exit_code
    except VcsError as error:
        click.echo(f"vcs: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing may be flushed to the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
