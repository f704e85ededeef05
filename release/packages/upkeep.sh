# shellcheck shell=sh
# What a package of banger does when it is upgraded, removed and purged; each deed is safe where systemd does not run,
# and leaves alone an installation whose binary is another one's (/usr/local/bin/banger).

record=/etc/banger/install.toml

installed_from_here() { grep -qsxF 'binary = "/usr/bin/banger"' "$record"; }

systemd_runs() { [ -d /run/systemd/system ]; }

# Units and services become those of the new binary. VMs go on.
refresh() {
    installed_from_here && systemd_runs || return 0
    /usr/bin/banger system install || {
        echo "banger: the services are not up to date; when the reason above is gone: sudo banger system install" >&2
    }
}

# Services, units and rules go. Refused while VMs run: it says which, and what to type.
leave() {
    installed_from_here || return 0
    if systemd_runs; then
        /usr/bin/banger system uninstall
    else
        for unit in bangerd bangerd-root; do
            rm -f "/etc/systemd/system/$unit.service" "/etc/systemd/system/$unit.socket" \
                "/etc/systemd/system/multi-user.target.wants/$unit.service" \
                "/etc/systemd/system/sockets.target.wants/$unit.socket"
        done
        rm -f "$record"
    fi
}

# All data goes, unless another installation uses it.
purge() {
    [ ! -e "$record" ] || return 0
    rm -rf --one-file-system /var/lib/banger /var/lib/bangerd-root /var/cache/banger /var/cache/banger-root /etc/banger
}
