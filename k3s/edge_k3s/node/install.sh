#!/bin/sh
# Makes this machine a node of the site that this kit is for. Run it as root; run it again whenever you like: it does
# what is still to do, and nothing else.
#
#   sh install.sh                    do it
#   sh install.sh --dry-run          say what would be done
#   sh install.sh --uninstall        take it away again; what the site remembers stays, for a kit of the same site,
#                                    and so does this script, in /var/lib/edge-agent-kit
#   sh install.sh --uninstall --purge          ... and goes too, for ever: now, or any time after an --uninstall
#
#   --key HEX       refuse a kit that another key than this one signed (your operator tells it to you)
#   --add-route     on a machine without a network: make the default route that k3s wants
#   --settings      where k3s was here before this kit: give it the kit's settings too
#   --ignore-size   install on a machine that is smaller than the kit asks for
#   --wait SECONDS  for k3s to start and make the site's volume (300)
#   --root DIR      lay the files below DIR, for an image of a machine; nothing is started
#
# Exit codes: 0 done, 2 something about this machine or an option is wrong, 3 this kit is refused, 4 not yet: run again.
set -eu
umask 022
LC_ALL=C
export LC_ALL

HERE=$(cd "$(dirname "$0")" && pwd)
ME=$HERE/${0##*/}
ROOT='' DO=install DRY='' PURGE='' KEY='' ROUTE='' SETTINGS='' ANY_SIZE='' WAIT=300
STATE=/var/lib/edge-agent-kit # what of the kit stays on the machine
KEPT=$STATE/kept.env          # where a site was taken away and its memory is still here: whose
NODE=/etc/edge-agent          # whose node this machine is, and which files the kit put here
MANIFESTS=/var/lib/rancher/k3s/server/manifests
IMAGES=/var/lib/rancher/k3s/agent/images
UNITS=/etc/systemd/system
SITE_UID=10001 # of the process in the pod

say() { printf '%s\n' "$*"; }
mind() { printf 'mind: %s\n' "$*" >&2; }
fail() {
  code=$1
  shift
  printf 'error: %s\n' "$*" >&2
  exit "$code"
}
has() { command -v "$1" >/dev/null 2>&1; }
value_of() { sed -n "s/^$1=//p" "$2"; } # NAME FILE

# --- the kit ---

in_kit() { sed -n 's/^[0-9a-f]\{64\}  //p' SHA256SUMS | grep -- "$1" || :; } # only what the sums name is laid or run

check_kit() {
  [ -f SHA256SUMS ] && [ -f kit.env ] || fail 3 "$HERE is no kit: SHA256SUMS or kit.env is missing"
  has sha256sum || fail 2 "sha256sum is not on this machine: install coreutils"
  found=$(sha256sum -c SHA256SUMS 2>&1) ||
    fail 3 "this kit was changed or is not whole: $(printf '%s\n' "$found" | grep -v ': OK$' | head -n 1). Get a new one"
  check_signature
  # A file that the sums do not name is under no signature. Theirs are said twice here: what is said once is strange.
  strange=$({ in_kit ''; in_kit ''; find airgap manifests node release ! -type d 2>/dev/null || :; } | sort | uniq -u |
    head -n 1)
  [ -z "$strange" ] || fail 3 "$strange is no part of this kit: somebody put it there. Get a new one"
  # Where the kit's own program is here already, it looks closer.
  if [ -z "${EDGE_KIT_CHECKED:-}" ] && has edge-agent; then
    said=$(edge-agent node check "$HERE" 2>&1) || case $? in
    1 | 3) fail 3 "edge-agent node check refuses this kit: $(printf '%s\n' "$said" | first_wrong)" ;;
    *) mind "edge-agent node check could not be run: $(printf '%s\n' "$said" | tail -n 1)" ;;
    esac
  fi
  [ "$(value_of KIT_FORMAT kit.env)" = 1 ] || fail 3 "this kit is of a format that its install.sh does not know"
}

# Of all that `node check` says: the first thing that it found wrong and what to do about it, in one line.
first_wrong() {
  awk '/^(✓|!|✗) / { if (what != "") exit; if (sub(/^✗ /, "")) what = $0; next }
    what != "" { what = what (sub(/^ +→ /, "") ? ": " : " ") $0 }
    { sub(/^error: /, ""); last = $0 }
    END { print what != "" ? what : last }'
}

check_signature() {
  if [ ! -f SHA256SUMS.sig ]; then
    # A kit brings its key where it was signed, and only there.
    [ -z "$(in_kit '^signing-key\.pem$')" ] ||
      fail 3 "the signature that this kit had is gone (SHA256SUMS.sig): copy all of the kit again, or ask for a new one"
    [ -z "$KEY" ] || fail 3 "this kit is not signed: ask for one that is"
    mind "this kit is not signed: whole, but from whom?"
    return 0
  fi
  case $(openssl version 2>/dev/null) in
  "OpenSSL "[3-9]*) ;;
  *)
    [ -z "$KEY" ] || fail 2 "openssl 3 is not on this machine, and --key needs it"
    mind "openssl 3 is not on this machine: the kit is whole, its signature was not looked at"
    return 0
    ;;
  esac
  openssl pkeyutl -verify -rawin -pubin -inkey signing-key.pem -in SHA256SUMS -sigfile SHA256SUMS.sig \
    >/dev/null 2>&1 || fail 3 "the signature of this kit is wrong: somebody changed it. Ask for a new one"
  der=$(openssl pkey -pubin -in signing-key.pem -outform DER | od -An -v -tx1 | tr -d ' \n')
  signer=${der#302a300506032b6570032100} # of an Ed25519 key (RFC 8410); 32 bytes follow, and nothing else
  [ "$signer" != "$der" ] && [ ${#signer} = 64 ] || fail 3 "this kit was signed by a key of another kind than Ed25519"
  grep -q "\"public\": *\"$signer\"" root.json || fail 3 "this kit was signed by a key that its root.json does not know"
  [ -z "$KEY" ] || [ "$KEY" = "$signer" ] || fail 3 "this kit was signed by key $signer, not by $KEY"
}

# --- the machine ---

check_machine() {
  whose=$(site_here)
  if [ -n "$whose" ] && [ "$whose" != "$SITE" ]; then
    here="still holds what $whose remembers"
    [ ! -f "$ROOT$NODE/kit.env" ] || here="is a node of $whose already"
    fail 3 "this machine $here, and $SITE must not begin with that memory: take another machine for it, or, if all" \
      "that $whose remembers shall go for ever, first run: $(command_to --uninstall --purge)"
  fi
  check_token
  if brings k3s && [ -f "$ROOT/usr/local/bin/k3s" ] && ! placed /usr/local/bin/k3s; then
    cmp -s airgap/k3s "$ROOT/usr/local/bin/k3s" ||
      fail 2 "another k3s is on this machine already: remove it, or ask for a kit that brings none"
  fi
  if ! brings k3s && [ -z "$ROOT" ] && ! has k3s; then
    fail 2 "k3s is not on this machine and this kit does not bring it: install it, or ask for a kit made with --k3s"
  fi
  if ! brings k3s && [ -n "$ROOT" ] && [ ! -f "$ROOT/usr/local/bin/k3s" ] && [ ! -f "$ROOT/usr/bin/k3s" ]; then
    mind "no k3s is below $ROOT and this kit does not bring it: the site starts once one is there"
  fi
  if [ -z "$ROOT" ]; then
    check_arch
    has systemctl || fail 2 "this machine has no systemd, which k3s and this kit are started by"
  fi
  proc=/proc
  [ -z "$ROOT" ] || proc=$ROOT/proc
  if [ -f "$proc/meminfo" ]; then
    check_size
    check_route
  else
    mind "size and default route of the machine are not looked at: it does not run"
  fi
}

# Whose node this machine is, or whose memory is still on it; nothing where it is nobody's.
site_here() { cat "$ROOT$NODE/kit.env" "$ROOT$KEPT" 2>/dev/null | sed -n 's/^SITE=//p' | head -n 1; }

command_to() { # OPTIONS: what a person types for that
  script=$ROOT$STATE/install.sh
  [ -f "$script" ] || script=$ME
  if [ -z "$ROOT" ]; then say "sudo sh $script $*"; else say "sh '$script' --root '$ROOT' $*"; fi
}

check_arch() {
  for_arch=$(value_of ARCH kit.env)
  case $(uname -m) in
  x86_64 | amd64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
  esac
  [ -z "$for_arch" ] || [ "$for_arch" = "$arch" ] ||
    fail 2 "this machine is $arch, and the k3s of this kit is for $for_arch: take another machine, or ask for a kit for it"
}

check_token() {
  now=$(date +%s)
  made=$(value_of MADE kit.env)
  [ "$((now + 86400))" -ge "$made" ] ||
    mind "this machine's clock says $(date -u +%Y-%m-%d), which is before this kit was made: set it if you can"
  ends=$(value_of TOKEN_EXPIRES kit.env)
  [ -n "$ends" ] && [ "$now" -gt "$ends" ] || return 0
  # It was used in time, or this machine cannot join any more: installing it again changes neither.
  cmp -s kit.env "$ROOT$NODE/kit.env" 2>/dev/null && return 0
  [ -f "$ROOT$KEPT" ] && grep -v '^K3S=' "$ROOT$KEPT" | cmp -s kit.env - && return 0
  fail 3 "the join token in this kit ended on $(date -u -d "@$ends" +%Y-%m-%d):" \
    "ask your operator for a new kit (edge-agent node provision $SITE --replace)"
}

check_size() {
  [ -z "$ANY_SIZE" ] || return 0
  cores=$(grep -c '^processor' "$proc/cpuinfo" 2>/dev/null || getconf _NPROCESSORS_ONLN)
  memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' "$proc/meminfo")
  top=$ROOT/var/lib
  while [ ! -d "$top" ]; do top=$(dirname "$top"); done
  disk=$(df -Pk "$top" | awk 'NR == 2 { print int($4 / 1024) }')
  # What an earlier run put here needs no room again.
  [ -z "$whose" ] || disk=$((disk + $(value_of NEED_DISK_MB kit.env)))
  enough "processor cores" "$cores" NEED_CORES ""
  enough memory "$memory" NEED_MEMORY_MB " MB"
  enough "free disk in $top" "$disk" NEED_DISK_MB " MB"
}

enough() { # WHAT HAVE NAME UNIT
  need=$(value_of "$3" kit.env)
  [ "$2" -ge "$need" ] ||
    fail 2 "this machine is too small: $1: $2$4, and this kit needs $need$4. Take a larger one (or --ignore-size)"
}

check_route() {
  awk '$2 == "00000000" && $8 == "00000000" { found = 1 } END { exit !found }' "$proc/net/route" 2>/dev/null && return 0
  awk '$1 ~ /^0+$/ && $2 == "00" && $NF != "lo" { found = 1 } END { exit !found }' "$proc/net/ipv6_route" 2>/dev/null &&
    return 0
  [ -n "$ROUTE" ] && return 0
  fail 2 "this machine has no default route, and k3s does not start without one: connect it to its network," \
    "or run this again with --add-route"
}

brings() { in_kit '' | grep -qxF -- "airgap/$1"; }

# --- laying files ---

CHANGED=
placed() { grep -qxF -- "$1" "$ROOT$NODE/placed" 2>/dev/null; }

lay() { # MODE SOURCE TARGET: whole or not at all
  target=$ROOT$3
  if [ -f "$target" ] && cmp -s "$2" "$target"; then
    [ -n "$DRY" ] || chmod "$1" "$target"
    return 0
  fi
  CHANGED="$CHANGED $3"
  if [ -n "$DRY" ]; then
    say "would write $3"
    return 0
  fi
  say "write $3"
  mkdir -p "$(dirname "$target")"
  # Noted before it is there, so that --uninstall finds what an interrupted run left.
  placed "$3" || printf '%s\n' "$3" >>"$ROOT$NODE/placed"
  put "$1" "$2" "$target"
}

put() { # MODE SOURCE PATH
  # A dot file: k3s reads none of those in the folders it watches.
  part=$(dirname "$3")/.edge-agent.part
  rm -f "$part"
  (umask 077 && cat "$2" >"$part")
  chmod "$1" "$part"
  sync "$part" 2>/dev/null || sync
  mv -f "$part" "$3"
}

lay_all() {
  if [ -z "$DRY" ]; then
    mkdir -p "$ROOT$NODE" "$ROOT$STATE"
    chmod 0700 "$ROOT$NODE" "$ROOT$STATE"
    touch "$ROOT$NODE/placed"
  fi
  # Noted before, so that it is done too where this run is interrupted.
  if [ -z "$ROOT$DRY" ] && ! cmp -s kit.env "$NODE/kit.env"; then touch "$STATE/restart"; fi
  lay 0644 kit.env $NODE/kit.env # first: from here on this machine is this site's
  lay 0755 install.sh $STATE/install.sh
  if brings k3s || [ -n "$SETTINGS" ]; then lay_settings; fi
  for image in $(in_kit '^airgap/.*\.tar\(\.gz\|\.zst\)\?$'); do
    lay 0644 "$image" "$IMAGES/${image#airgap/}"
  done
  if [ -z "$DRY" ]; then
    # Secrets are among them: nobody else looks in, whatever made the folder.
    mkdir -p "$ROOT$MANIFESTS"
    chmod 0700 "$ROOT$MANIFESTS"
  fi
  for manifest in $(in_kit '^manifests/'); do lay 0600 "$manifest" "$MANIFESTS/${manifest#manifests/}"; done
  lay_release
  lay 0644 node/edge-agent-k3s-restart.service $UNITS/edge-agent-k3s-restart.service
  lay 0644 node/edge-agent-k3s-restart.timer $UNITS/edge-agent-k3s-restart.timer
  enable_unit edge-agent-k3s-restart.timer timers.target
  if [ -n "$ROUTE" ]; then
    lay 0644 node/edge-agent-route.service $UNITS/edge-agent-route.service
    enable_unit edge-agent-route.service multi-user.target
  fi
}

lay_settings() {
  lay 0600 node/config.yaml /etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml
  if [ -f "$ROOT/etc/rancher/k3s/registries.yaml" ] && ! placed /etc/rancher/k3s/registries.yaml; then
    mind "/etc/rancher/k3s/registries.yaml was here before: it is left as it is"
  else
    lay 0600 node/registries.yaml /etc/rancher/k3s/registries.yaml
  fi
  lay 0600 node/psa.yaml /var/lib/rancher/k3s/server/psa.yaml
  lay 0600 node/audit.yaml /var/lib/rancher/k3s/server/audit.yaml
  lay 0644 node/sysctl.conf /etc/sysctl.d/90-kubelet.conf
  if [ -z "$DRY" ]; then
    mkdir -p "$ROOT/var/lib/rancher/k3s/server/logs"
    chmod 0700 "$ROOT/var/lib/rancher/k3s/server/logs"
  fi
}

lay_release() {
  [ -n "$(in_kit '^release/')" ] || return 0
  mark=$(sed -n '/  release\//p' SHA256SUMS | sha256sum | cut -c1-64)
  [ "$(cat "$ROOT$STATE/release.done" 2>/dev/null)" = "$mark" ] && return 0
  for file in $(in_kit '^release/'); do lay 0640 "$file" "$STATE/$file"; done
  lay 0644 node/edge-agent-release.service $UNITS/edge-agent-release.service
  enable_unit edge-agent-release.service multi-user.target
  [ -n "$DRY" ] || printf '%s\n' "$mark" >"$ROOT$STATE/release/.mark"
}

enable_unit() { # UNIT TARGET
  link=$UNITS/$2.wants/$1
  [ ! -L "$ROOT$link" ] || return 0
  CHANGED="$CHANGED $link"
  if [ -n "$DRY" ]; then
    say "would enable $1"
    return 0
  fi
  say "enable $1"
  mkdir -p "$ROOT$UNITS/$2.wants"
  placed "$link" || printf '%s\n' "$link" >>"$ROOT$NODE/placed"
  ln -s "../$1" "$ROOT$link"
}

lay_k3s() {
  brings k3s || return 0
  lay 0755 airgap/k3s /usr/local/bin/k3s
  if ! brings k3s-install.sh; then
    for name in kubectl crictl ctr; do
      if [ ! -e "$ROOT/usr/local/bin/$name" ] && [ -z "$DRY" ]; then
        ln -s k3s "$ROOT/usr/local/bin/$name"
        printf '%s\n' "/usr/local/bin/$name" >>"$ROOT$NODE/placed"
      fi
    done
    lay 0644 node/k3s.service $UNITS/k3s.service
    enable_unit k3s.service multi-user.target
  elif [ ! -f "$ROOT$UNITS/k3s.service" ]; then
    # Settings are in files: what is given to the installer would be lost the next time it runs.
    CHANGED="$CHANGED k3s"
    if [ -n "$DRY" ]; then
      say "would run k3s-install.sh"
      return 0
    fi
    say "run k3s-install.sh"
    skip=
    [ -z "$ROOT" ] || skip=true
    INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_SELINUX_RPM=true INSTALL_K3S_SKIP_START=true \
      INSTALL_K3S_SKIP_ENABLE=$skip INSTALL_K3S_BIN_DIR=$ROOT/usr/local/bin INSTALL_K3S_SYSTEMD_DIR=$ROOT$UNITS \
      sh airgap/k3s-install.sh || fail 2 "k3s-install.sh ended with an error: what it said is above"
    [ -f "$ROOT$UNITS/k3s.service" ] || fail 2 "k3s-install.sh made no $ROOT$UNITS/k3s.service, so nothing would" \
      "start k3s: ask for a kit without that script (its own unit starts k3s then), or with k3s's own one"
    [ -z "$ROOT" ] || enable_unit k3s.service multi-user.target
  fi
}

# What an older kit laid into the folders that k3s reads, and this one does not name, goes. The file of the namespace
# and the volume stays whatever happens: k3s would remove both, and the site's memory with them.
tidy() {
  wanted=$(in_kit '' | sed -n "s|^manifests/|$MANIFESTS/|p; s|^airgap/|$IMAGES/|p")
  before=$(cat "$ROOT$NODE/placed" 2>/dev/null) || return 0
  images="^$IMAGES/"
  case $wanted in *"$IMAGES/"*.tar*) ;; *) images="^$MANIFESTS/" ;; esac # a kit that brings none takes none away
  printf '%s\n' "$before" | grep -e "^$MANIFESTS/" -e "$images" | grep -vxF -e "$wanted" |
    grep -vxF "$MANIFESTS/00-namespace-and-data.yaml" | while read -r path; do
    if [ -n "$DRY" ]; then
      say "would remove $path"
      continue
    fi
    say "remove $path"
    rm_file "$path"
    grep -vxF -- "$path" "$ROOT$NODE/placed" >"$ROOT$NODE/placed.part" || :
    mv -f "$ROOT$NODE/placed.part" "$ROOT$NODE/placed"
  done
}

rm_file() { # one that was placed
  case $1 in *05-secrets.yaml) [ ! -f "$ROOT$1" ] || wipe "$ROOT$1" ;; esac
  rm -f "$ROOT$1"
}

# --- starting ---

start() {
  if [ -n "$ROOT" ] || [ -n "$DRY" ]; then return 0; fi
  systemctl daemon-reload
  [ -z "$ROUTE" ] || systemctl start edge-agent-route.service
  case $CHANGED in *sysctl*) sysctl -q -p /etc/sysctl.d/90-kubelet.conf || mind "the kernel's settings count after a restart" ;; esac
  systemctl start edge-agent-k3s-restart.timer
  if ! systemctl is-active -q k3s; then
    say "start k3s (this may take some minutes)"
    systemctl start k3s || fail 4 "k3s did not start: journalctl -u k3s says why; then run this again"
  else
    case $CHANGED in *etc/rancher* | *psa.yaml* | *audit.yaml* | *bin/k3s* | *k3s.service*)
      touch "$STATE/restart"
      ;;
    esac
    # A k3s that runs skips a manifest that it applied once, whatever became of the objects since: all of them anew.
    if [ -f "$STATE/restart" ]; then
      say "restart k3s (this may take some minutes)"
      systemctl restart k3s || fail 4 "k3s did not start: journalctl -u k3s says why; then run this again"
    fi
  fi
  rm -f "$STATE/restart"
}

kube() {
  if [ -x "$ROOT/usr/local/bin/k3s" ]; then "$ROOT/usr/local/bin/k3s" kubectl "$@"; else k3s kubectl "$@"; fi
}

# Copies the first release into the site's volume: it is there once k3s has made it, and the site waits for it.
fill() {
  from=$ROOT$STATE/release
  [ -d "$from" ] || return 0
  say "wait for the site's volume (at most $WAIT s)"
  tries=$WAIT
  volume='' folder=''
  while :; do
    volume=$(kube -n edge-agent get pvc site-data -o 'jsonpath={.spec.volumeName}' 2>/dev/null) || volume=
    if [ -n "$volume" ]; then
      folder=$(kube get pv "$volume" -o 'jsonpath={.spec.hostPath.path}{.spec.local.path}' 2>/dev/null) || folder=
      [ -n "$folder" ] && [ -d "$ROOT$folder" ] && break
    fi
    tries=$((tries - 2))
    if [ "$tries" -le 0 ] && [ "$DO" = install ]; then systemctl start --no-block edge-agent-release.service; fi
    [ "$tries" -gt 0 ] || fail 4 "the site's volume is not there yet: k3s is still starting, or misses an image" \
      "(k3s kubectl -n edge-agent get pods). It is tried again by itself, and at every start of this machine"
    sleep 2
  done
  into "$from" "$ROOT$folder"
  [ ! -f "$from/.mark" ] || mv -f "$from/.mark" "$ROOT$STATE/release.done"
  rm -rf "$from"
  say "the first release is in the site's volume: restart the site"
  kube -n edge-agent rollout restart deployment/site
  kube -n edge-agent rollout status deployment/site --timeout="${WAIT}s" ||
    fail 4 "the site does not run yet: k3s kubectl -n edge-agent logs deployment/site"
}

# The pod owns the volume's folder and may have put links there that lead anywhere on this machine. So the release is
# made beside that folder, where the pod never comes, and gets in by a rename, which follows no link.
into() { # RELEASE VOLUME
  beside=$(dirname "$2")
  [ "$(stat -c %d "$beside")" = "$(stat -c %d "$2")" ] ||
    fail 2 "the site's volume $2 is a disk of its own: mount that disk at $beside"
  rm -rf "$beside"/.edge-agent-release.* # of a run that was interrupted
  made=$(mktemp -d "$beside/.edge-agent-release.XXXXXX")
  mkdir -m 0700 "$made/new"
  for file in "$1"/*; do
    cp "$file" "$made/new/"
    own "$made/new/${file##*/}" 0440
  done
  own "$made/new" 0750
  sync
  if [ -e "$2/release" ] || [ -L "$2/release" ]; then mv -fT "$2/release" "$made/old" || :; fi
  mv -fT "$made/new" "$2/release" || fail 4 "something got in the way in the site's volume: run this again"
  rm -rf "$made"
  sync
}

own() { # PATH MODE
  chmod "$2" "$1"
  [ "$(id -u)" != 0 ] || chown "$SITE_UID:$SITE_UID" "$1"
}

renew_k3s() {
  cert=$ROOT/var/lib/rancher/k3s/server/tls/serving-kube-apiserver.crt
  [ -f "$cert" ] || return 0
  if has openssl; then
    openssl x509 -checkend 7776000 -noout -in "$cert" >/dev/null 2>&1 && return 0
  else
    # It was written when it was made.
    [ -n "$(find "$cert" -mtime +275)" ] || return 0
  fi
  say "k3s's certificates end within 90 days: restart it"
  [ -n "$ROOT" ] || systemctl restart k3s
}

# --- taking it away ---

uninstall() {
  [ -f "$ROOT$NODE/placed" ] || [ -d "$ROOT$STATE" ] || fail 2 "nothing of a kit is on this machine"
  site=$(site_here)
  mine=
  ours && mine=yes
  keep=$site # without a name there is no memory either: the first run ended before it laid anything
  [ -z "$PURGE" ] || keep=
  if [ -z "$ROOT" ] && [ -z "$DRY" ]; then
    if systemctl is-active -q k3s; then
      say "stop the site"
      kube -n edge-agent scale deployment/site --replicas=0 --timeout=60s 2>/dev/null || :
    fi
    systemctl disable -q --now edge-agent-k3s-restart.timer edge-agent-release.service 2>/dev/null || :
    if [ -n "$mine" ]; then
      systemctl disable -q --now k3s 2>/dev/null || :
      if [ -x /usr/local/bin/k3s-killall.sh ]; then
        /usr/local/bin/k3s-killall.sh >/dev/null 2>&1 || :
      elif [ -z "$PURGE" ] && [ -f "$NODE/placed" ]; then
        mind "restart this machine to end what k3s left running"
      fi
      # Before anything is removed: after the restart this has to be here to be run again.
      if [ -n "$PURGE" ]; then
        alive=$(left_alive | head -n 1)
        [ -z "$alive" ] || fail 4 "k3s is switched off and left $alive: restart this machine, then run this again"
      fi
    fi
  fi
  [ -n "$mine" ] || [ -z "$PURGE" ] || forget
  [ -z "$keep" ] || [ -n "$DRY" ] || remember
  if [ -f "$ROOT$NODE/placed" ]; then
    while read -r path; do
      # These two go last: until then this can be run again, and knows whose memory it takes away.
      case $path in "$NODE/kit.env" | "$STATE/install.sh") ;; *) drop "$path" ;; esac
    done <"$ROOT$NODE/placed"
  fi
  if [ -n "$mine" ]; then
    made=$(made_by_k3s) # in words that the shell may split: they are paths of ours
    for path in $made; do placed "$path" || drop "$path"; done
  fi
  if [ -n "$mine" ] && [ -n "$PURGE" ]; then
    for path in /var/lib/rancher/k3s /etc/rancher/k3s /var/lib/kubelet /run/k3s; do drop_all "$path"; done
    # Folders that disks are mounted at may stay. Where a file does, this machine still knows whose it is.
    stays=$(find "$ROOT/var/lib/rancher/k3s" ! -type d 2>/dev/null | head -n 1)
    [ -n "$DRY" ] || [ -z "$stays" ] || fail 4 "$stays cannot be removed: see what holds it, then run this again"
  fi
  cd / # out of what goes
  drop_all "$NODE"
  if [ -z "$keep" ]; then
    drop_all "$STATE"
  elif [ -z "$DRY" ]; then
    find "$ROOT$STATE" -mindepth 1 -maxdepth 1 ! -name install.sh ! -name "${KEPT##*/}" -exec rm -rf {} +
  fi
  if [ -z "$ROOT" ] && [ -z "$DRY" ]; then systemctl daemon-reload; fi
  where=/var/lib/rancher/k3s
  [ -n "$mine" ] || where="its volume in k3s"
  if [ -n "$keep" ] && [ -n "$DRY" ]; then
    say "would keep what $site remembers in $where, and $STATE/install.sh, which can remove that later"
  elif [ -n "$keep" ]; then
    say "$site is no longer installed; what it remembers is still in $where. To remove that too, for ever, run:" \
      "$(command_to --uninstall --purge)"
  elif [ -z "$DRY" ]; then
    too=${PURGE:+, and nothing that it remembered is on this machine}
    say "${site:-the site} is no longer installed$too"
  fi
}

# Whether k3s, or what it left here, came with a kit and is nobody else's since.
ours() {
  placed /usr/local/bin/k3s && return 0
  [ -f "$ROOT$KEPT" ] && [ "$(value_of K3S "$ROOT$KEPT")" = kit ] && ! k3s_is_here
}

k3s_is_here() { [ -e "$ROOT/usr/local/bin/k3s" ] || { [ -z "$ROOT" ] && has k3s; }; }

# What a later --purge has to know, and the script that does it: this one, since the one here may be older.
remember() {
  mkdir -p "$ROOT$STATE"
  if [ -f "$ROOT$NODE/kit.env" ]; then
    { cat "$ROOT$NODE/kit.env" && printf 'K3S=%s\n' "${mine:+kit}"; } | put 0644 - "$ROOT$KEPT"
  fi
  [ ! -f "$ME" ] || cmp -s "$ME" "$ROOT$STATE/install.sh" || put 0755 "$ME" "$ROOT$STATE/install.sh"
}

# Where k3s is not the kit's it stays, and what the site remembers goes with its namespace.
forget() {
  data=$ROOT/var/lib/rancher/k3s
  if [ -n "$ROOT" ] || ! k3s_is_here; then
    [ -d "$data/server/db" ] || [ -d "$data/storage" ] || return 0 # none ever ran
    [ -z "$ROOT" ] || fail 2 "what ${site:-the site} remembers is held by a k3s that no kit brought, and that does not" \
      "run below --root: run this on the machine itself"
    fail 2 "k3s is no longer on this machine, and what ${site:-the site} remembers is in the folder that it left," \
      "$data: bring k3s back or remove that folder, then run this again"
  fi
  if [ -n "$DRY" ]; then
    say "would remove the namespace edge-agent from k3s"
    return 0
  fi
  kube delete namespace edge-agent --ignore-not-found --timeout=120s ||
    fail 4 "k3s did not remove the namespace edge-agent, which holds what ${site:-the site} remembers: see that k3s" \
      "runs (systemctl start k3s), then run this again"
}

made_by_k3s() { # what k3s's install script put here beside k3s itself
  say "$UNITS/k3s.service $UNITS/k3s.service.env"
  for name in kubectl crictl ctr; do
    if [ "$(readlink "$ROOT/usr/local/bin/$name")" = k3s ]; then say "/usr/local/bin/$name"; fi
  done
  # It ends what k3s left running: until the purge.
  if [ -n "$PURGE" ]; then say "/usr/local/bin/k3s-killall.sh /usr/local/bin/k3s-uninstall.sh"; fi
}

drop() { # a file, or a link
  [ -e "$ROOT$1" ] || [ -L "$ROOT$1" ] || return 0
  if [ -n "$DRY" ]; then
    say "would remove $1"
    return 0
  fi
  say "remove $1"
  rm_file "$1"
}

drop_all() { # a folder
  [ -d "$ROOT$1" ] || return 0
  if [ -n "$DRY" ]; then
    say "would remove $1"
    return 0
  fi
  say "remove $1"
  rm -rf "$ROOT$1" || mind "something of $1 is left"
}

left_alive() { # what of k3s is mounted or runs, though k3s was stopped
  while read -r _ at _; do
    case $at/ in /var/lib/rancher/k3s/* | /var/lib/kubelet/* | /run/k3s/*) ;; *) continue ;; esac
    # What fstab mounts there is the machine's own, and there again after a restart.
    grep -qs "^[^#[:space:]]*[[:space:]]\{1,\}${at}[[:space:]]" /etc/fstab || echo "$at mounted"
  done </proc/self/mounts
  for program in /proc/[0-9]*/exe; do
    case $(readlink "$program") in /var/lib/rancher/k3s/*) echo "${program%/exe} running" ;; esac
  done
}

wipe() { # a file's bytes, as well as a flash disk allows
  size=$(wc -c <"$1")
  head -c "$size" /dev/zero >"$1.wiped" && cat "$1.wiped" >"$1" && rm -f "$1.wiped"
  sync
}

# --- what was asked ---

while [ $# -gt 0 ]; do
  case $1 in
  --dry-run) DRY=yes ;;
  --uninstall) DO=uninstall ;;
  --purge) PURGE=yes ;;
  --add-route) ROUTE=yes ;;
  --settings) SETTINGS=yes ;;
  --ignore-size) ANY_SIZE=yes ;;
  --fill) DO=fill ;;
  --renew-k3s) DO=renew_k3s ;;
  --key | --wait | --root)
    [ $# -ge 2 ] || fail 2 "$1 wants a value"
    case $1 in
    --key) KEY=$2 ;;
    --wait) WAIT=$2 ;;
    --root)
      # From here on absolute, and never this machine itself, by whatever name.
      ROOT=$([ -n "$2" ] && CDPATH='' cd -P -- "$2" 2>/dev/null && pwd -P) || ROOT=
      case $ROOT in '' | / | //) fail 2 "--root wants a folder that is there and is not /: '$2' is none" ;; esac
      ;;
    esac
    shift
    ;;
  -h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    exit 0
    ;;
  *) fail 2 "unknown option $1: sh install.sh --help lists them" ;;
  esac
  shift
done
[ -z "$PURGE" ] || [ "$DO" = uninstall ] || fail 2 "--purge goes with --uninstall only"

[ -n "$ROOT" ] || [ "$(id -u)" = 0 ] || fail 2 "this needs root: sudo sh install.sh"

cd "$HERE"
if [ "$DO" != install ]; then
  "$DO"
  exit 0
fi
check_kit
SITE=$(value_of SITE kit.env)
check_machine
lay_all
lay_k3s
[ -n "$DRY" ] || rm -f "$ROOT$KEPT" # what it says is said by kit.env and placed now, also of k3s
old=$(tidy)
[ -z "$old" ] || say "$old"
if [ -n "$DRY" ]; then
  [ -n "$CHANGED$old" ] || say "nothing is to be done: this machine is a node of $SITE"
  exit 0
fi
start
if [ -n "$ROOT" ]; then
  if brings k3s; then with='' ; else with=' that has k3s'; fi
  say "$SITE is laid below $ROOT; it starts when a machine$with does from there"
else
  fill
  say "this machine is a node of $SITE"
fi
