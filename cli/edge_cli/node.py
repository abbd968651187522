"""`edge-agent node`: from a bare machine to a node of a site. Every command is a module of its own beside this one."""

import typer

from edge_cli import node_backup, node_check, node_install, node_join, node_provision, node_retire, node_upgrade

app = typer.Typer(add_completion=False, no_args_is_help=True, help="From a bare machine to a node of a site.")

for _each in (node_provision, node_check, node_install, node_join, node_upgrade, node_backup, node_retire):
    app.registered_commands += _each.app.registered_commands
