# Stops a local cluster's servers once the process that started them is gone, however it went: the pipe on our standard
# input closes with it. Reads three lines first: the marker that the servers' command lines carry, how to end
# (`remove` the folder, or `keep` it), and the folder.

trap '' HUP INT TERM
IFS= read -r marker || exit 1
IFS= read -r ending || exit 1
IFS= read -r folder || exit 1
while IFS= read -r _; do :; done
exec </dev/null

# Processes whose command line has the marker: nothing else is ever signalled. The marker comes to grep by a pipe, so that
# no process of our own carries it.
ours() {
    if [ -r /proc/self/cmdline ]; then
        for file in $(printf '%s\n' "$marker" | grep -lsF -f - /proc/[0-9]*/cmdline); do
            file=${file#/proc/}
            echo "${file%/cmdline}"
        done
    else
        ps -A -o pid= -o args= | while read -r pid args; do
            case $args in *"$marker"*) echo "$pid" ;; esac
        done
    fi
}

# Of those, the ones that a postmaster.pid in our folder names.
postmasters() {
    for file in "$folder"/*/postmaster.pid; do
        [ -r "$file" ] && read -r pid <"$file" && echo "$found" | grep -qx "$pid" && echo "$pid"
    done
}

signal() {
    for pid in $2; do kill -s "$1" "$pid" 2>/dev/null; done
}

# A temporary cluster has nothing to save: QUIT (immediate). A kept one gets ten seconds for INT (fast). KILL comes last.
round=0
[ "$ending" = keep ] || round=200
while found=$(ours) && [ -n "$found" ] && [ $round -lt 600 ]; do
    signal CONT "$found"
    if [ $round -lt 200 ]; then signal INT "$(postmasters)"
    elif [ $round -lt 300 ]; then signal QUIT "$(postmasters)"
    else signal KILL "$found"
    fi
    round=$((round + 1))
    sleep 0.05
done

# A killed postmaster leaves its lock, a tiny segment of shared memory, behind: line 7 of postmaster.pid has key and id.
for file in "$folder"/*/postmaster.pid; do
    [ -r "$file" ] || continue
    set -- $(sed -n 7p "$file")
    [ $# -eq 2 ] || continue
    key=$(printf '0x%08x' "$1")
    ipcs -m 2>/dev/null | while read -r k i _ _ _ users _; do
        if [ "$k" = "$key" ] && [ "$i" = "$2" ] && [ "$users" = 0 ]; then ipcrm -m "$i" 2>/dev/null; fi
    done
done

# An initdb or a pg_basebackup may still be writing: until the folder stays away.
if [ "$ending" = remove ]; then
    round=0
    while [ $round -lt 50 ] && { [ -e "$folder" ] || [ $round -lt 2 ]; }; do
        rm -rf "$folder" 2>/dev/null
        round=$((round + 1))
        [ -e "$folder" ] && sleep 0.1
    done
fi
exit 0
