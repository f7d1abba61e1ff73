# shellcheck shell=bash
# Shared by `start` and `stop`: the folder of a node, and how a node is ended. To be sourced, not run.

default_dir=/tmp/modtrain-ray-$UID # not TMPDIR: `stop` must find it from another shell
dir=$default_dir

# Settings for a small private cluster: no usage reports, training at normal priority, and no killing of workers because
# other programs fill the machine's memory. A node whose head is lost leaves after 30 s.
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 RAY_memory_monitor_refresh_ms=0
export RAY_prestart_worker_first_driver=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
export RAY_gcs_rpc_server_reconnect_timeout_s=${RAY_gcs_rpc_server_reconnect_timeout_s:-30}

refuse() { # refuse SENTENCE: exit because of a wrong request
    printf 'ray: %s\n' "$1" >&2
    exit 2
}

check_dir() { # the paths of Ray's sockets must fit into 107 bytes
    [[ $dir =~ ^/[A-Za-z0-9/._-]{1,33}$ ]] ||
        refuse "--dir '$dir' must be a short absolute path, at most 34 characters of A-Z a-z 0-9 / . _ -."
}

is_ours() { [ -d "$dir" ] && [ -O "$dir" ] && [ ! -L "$dir" ]; }

pid_of() { # pid_of NODE: pid of its `ray start` if it runs (another process may have reused a pid)
    local pid
    { read -r pid <"$1/pid"; } 2>/dev/null || return 0
    if [[ $pid =~ ^[0-9]+$ ]] && grep -qsF -- "$1" "/proc/$pid/cmdline"; then printf '%s\n' "$pid"; fi
}

processes() { # processes NODE: pids of all processes that have the node's folder in their command line
    local file
    for file in /proc/[0-9]*/cmdline; do
        if grep -qsF -- "$1/" "$file" 2>/dev/null; then printf '%s\n' "${file//[!0-9]/}"; fi
    done
}

end_node() { # end_node NODE: SIGTERM, after ten seconds SIGKILL, then removes its folder
    local pid
    local -i deadline=SECONDS+10
    pid=$(pid_of "$1")
    [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
    while [ -n "$pid" ] && [ -n "$(pid_of "$1")" ] && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    for pid in $(processes "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf -- "$1"
}
