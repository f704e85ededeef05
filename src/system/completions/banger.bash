# Completion of banger for bash 4.2 and later: the binary says what fits, and starts nothing for that.
# shellcheck shell=bash

_banger() {
    local answer how i
    mapfile -t answer < <(command @BANGER@ --as banger-complete bash "${COMP_LINE:0:COMP_POINT}" "$2" "$COMP_TYPE" "${COLUMNS:-80}" 2>/dev/null)
    read -ra how <<<"${answer[0]-}"
    COMPREPLY=("${answer[@]:1}")
    # What comes from elsewhere than from the binary.
    for ((i = 0; i < ${#how[@]}; i++)); do
        case ${how[i]} in
        nospace) compopt -o nospace ;;
        users) mapfile -t COMPREPLY < <(compgen -u -- "$2") ;;
        files) _banger_files "$2" ;;
        folders) compopt -o dirnames ;;
        command) _banger_command "${how[i + 1]}" "$2" ;;
        esac
    done
}

# Files beside what is offered already; alone they are readline's own.
_banger_files() {
    local file i
    local -a files
    ((${#COMPREPLY[@]})) || { compopt -o default; return; }
    mapfile -t files < <(compgen -f -- "$1")
    ((${#files[@]})) || return
    for file in "${files[@]}"; do
        printf -v i %q "$file"
        COMPREPLY+=("${i/#\\~/\~}")
    done
    compopt +o nospace -o filenames -o noquote
}

# The command that begins at character $1 of the line.
_banger_command() {
    local i rest=$COMP_LINE
    for ((i = 0; i < COMP_CWORD; i++)); do
        rest=${rest#*"${COMP_WORDS[i]}"}
        ((${#COMP_LINE} - ${#rest} - ${#COMP_WORDS[i]} < $1)) || break
    done
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$i"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$i"
    elif ((i == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$2")
    else
        compopt -o default
    fi
}

# shellcheck disable=SC2046  # names are plain words
complete -F _banger banger $(command @BANGER@ --as banger-complete names 2>/dev/null)
