#!/bin/sh
# A stand-in for nvidia-smi: replays what the real one said on the machine that is pretended.
cd "$(dirname "$(readlink -f "$0")")/../smi" || exit 1

mode() { # ELEMENT WORDS VALUE: changes the mode of every GPU, as `-pm` and `-mig` do
    case $3 in 1 | ENABLED) word=Enabled ;; *) word=Disabled ;; esac
    sed -i -E "s|<($1)>[^<]*<|<\1>$word<|" xml
    while read -r address; do echo "$word $2 for GPU $address."; done <addresses
    echo "All done."
}
query() { # FIELDS FORMAT
    columns=$(echo "$1" | tr , ' ')
    for column in $columns; do
        if [ ! -e "fields/$column" ]; then
            echo "Field \"$column\" is not a valid field to query."
            exit 2
        fi
    done
    case $2 in *noheader*) ;; *) echo "$1" | sed 's/,/, /g' ;; esac
    # shellcheck disable=SC2086
    (cd fields && paste -d , $columns) | sed 's/,/, /g' |
        case $2 in *nounits*) sed -E 's/ (MiB|W|%)(,|$)/\2/g' ;; *) cat ;; esac
}

if [ -e failure ]; then
    cat failure
    exit "$(cat status)"
fi
case "$1 $2" in
"-q -x" | "-x -q") cat xml ;;
"-L "*) cat list ;;
"-pm "*) mode persistence_mode "persistence mode" "$2" ;;
"-mig "*) mode "current_mig|pending_mig" "MIG mode" "$2" ;;
--query-gpu=*" --format=csv"*) query "${1#*=}" "${2#*=}" ;;
*)
    echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."
    exit 2
    ;;
esac
