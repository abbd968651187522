#!/bin/sh
# Stands in for k3s's install script: notes what it was told, and makes the unit that it is there for.
env | grep '^INSTALL_K3S' | sort >"$INSTALL_K3S_BIN_DIR/installer.log"
mkdir -p "$INSTALL_K3S_SYSTEMD_DIR"
echo "[Service]" >"$INSTALL_K3S_SYSTEMD_DIR/k3s.service"
