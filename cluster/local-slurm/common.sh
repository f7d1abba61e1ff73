# shellcheck shell=bash
# What `up` and `down` share: reading --dir, and which processes belong to the Slurm of a folder. Not to be run by itself.

PATH=$PATH:/usr/sbin:/sbin # where the daemons are; not on everybody's PATH
dir=/tmp/modtrain-slurm
nodes=3

refuse() { # refuse SENTENCE: the caller asked for something that can't be done
    printf 'local-slurm: %s\n' "$1" >&2
    exit 2
}

read_options() { # read_options "--dir --nodes" "$@"
    local known=$1 option
    shift
    while [ $# -gt 0 ]; do
        option=${1%%=*}
        [[ " $known " == *" $option "* ]] || refuse "there is no option $1; the options are $known."
        if [[ $1 != *=* ]]; then
            [ $# -gt 1 ] || refuse "$1 needs a value."
            set -- "$1=$2" "${@:3}"
        fi
        printf -v "${option#--}" %s "${1#*=}"
        shift
    done
    # Slurm's conf splits at spaces and knows no quoting; a socket's path holds 107 characters.
    [[ $dir =~ ^[A-Za-z0-9/._-]{1,60}$ ]] ||
        refuse "--dir '$dir' may have at most 60 characters, of A-Z a-z 0-9 / . _ -; take a short one like /tmp/slurm."
    [[ $dir == /* ]] || dir=$PWD/$dir
    dir=${dir%/}
    [[ $nodes =~ ^[1-9][0-9]?$ ]] || refuse "--nodes '$nodes' must be a number from 1 to 99."
}

is_ours() { # the folder was made by `up`, and by this user
    [ -O "$dir" ] && [ -e "$dir/made-by-local-slurm" ]
}

node_names() { # of the Slurm in the folder, whatever --nodes says now
    cat "$dir/nodes" 2>/dev/null || true
}

pid_of() { # pid_of PIDFILE: the pid, if it lives and is a daemon of this folder (a pid can have gone to somebody else)
    local pid
    { read -r pid <"$1"; } 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ ]] && grep -qsF -- "$dir/" "/proc/$pid/cmdline" && printf '%s\n' "$pid"
}
