# Completion of banger for fish: the binary says what fits, and starts nothing for that.

function __banger_ask
    command @BANGER@ --as banger-complete fish (commandline -opc) (commandline -ct) 2>/dev/null
end

function __banger_offer
    set -l answer (__banger_ask)
    set -l how (string split ' ' -- "$answer[1]")
    if test "$how[1]" = command
        # From which word on; the last is still being typed, and is left as it is.
        set -l words (commandline -opc)
        set -l line (string escape -- $words[(math $how[2] + 1)..-1]) (commandline -ct)
        complete -C "$line"
        return
    end
    contains users $how; and __fish_complete_users
    set -q answer[2]; and printf '%s\n' $answer[2..-1]
end

function __banger_wants
    set -l answer (__banger_ask)
    contains -- $argv[1] (string split ' ' -- "$answer[1]")
end

for name in banger (command @BANGER@ --as banger-complete names 2>/dev/null)
    complete -c $name -f -a '(__banger_offer)'
    complete -c $name -n '__banger_wants files' -F
    complete -c $name -n '__banger_wants folders' -a '(__fish_complete_directories (commandline -ct) "")'
end
