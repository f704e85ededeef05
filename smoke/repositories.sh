# Makes one repository for each thing that a working tree can be, below $1.
set -eu
cd "$1"
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'

new() {
    git init -q -b trunk "$1"
    cd "$1"
    git config user.name 'A "quoted" Person'
    git config user.email person@example.org
}
commit() {
    git add -A
    git commit -q -m "$1"
}
odd_name=$(printf 'n\377\376\nx\ty"\\')

# A tree with everything edited, staged, moved and removed.
(
    new edited
    mkdir -p dir/sub
    for name in same edited staged both gone removed mode kind dir/sub/gone dir/same 'a b'; do
        printf '%s\nline\n' "$name" >"$name"
    done
    head -c 100000 /dev/urandom >bin
    printf 'one\r\ntwo\r\n' >crlf
    printf odd >"$odd_name"
    ln -s same link
    ln -s /etc/passwd link-out
    chmod +x mode
    printf 'ignored\n*.o\n' >.gitignore
    git remote add origin https://user:password@example.org/a/b.git
    commit first
    echo edited >>edited
    echo staged >>staged && git add staged
    echo staged >both && git add both && echo edited >both
    echo new >new && git add new
    echo intended >intended && git add -N intended
    git rm -q removed
    rm gone && rm -r dir/sub
    chmod -x mode
    rm kind && ln -s same kind
    echo untracked >untracked
    echo ignored >ignored
)

# Names, links, modes, line ends and attributes.
(
    new names
    mkdir -p "a/$odd_name/b" ' lead' 'dash'
    printf x >"a/$odd_name/b/$odd_name"
    printf x >' lead/trail '
    printf x >dash/-rf
    printf x >'*'
    printf x >'üñï'
    printf '*.txt eol=crlf\n' >.gitattributes
    printf 'one\r\ntwo\r\n' >eol.txt
    printf 'one\ntwo\r\n' >mixed
    ln -s 'no where' dangling
    ln -s .. up
    printf '#!/bin/sh\n' >run && chmod +x run
    : >empty
    commit names
)

new empty && cd ..

(
    new unborn
    echo 1 >a && echo 1 >b
    git add a
    echo 2 >a
)

(
    new detached
    echo 1 >a && commit one
    echo 2 >a && commit two
    git checkout -q --detach HEAD~1
    echo 3 >b && git add b
)

# A working tree beside its repository, with a part of it alone.
(
    new main-of-worktree
    mkdir in out
    echo 1 >in/a && echo 1 >out/a && commit one
    git worktree add -q -b second ../worktree
    cd ../worktree
    git sparse-checkout set --no-cone '/*' '!/out/'
    echo 2 >in/a
    git update-index --assume-unchanged in/a
    echo 3 >in/b && git add in/b
)

(
    new conflict
    echo 1 >a && echo 1 >b && commit base
    git checkout -q -b other && echo theirs >a && echo theirs >b && commit theirs
    git checkout -q trunk && echo ours >a && git rm -q b && commit ours
    git merge -q other || :
)

# A repository in a repository, and what is to go in although git ignores it.
(
    new nested
    printf '.env\nbuild/\n' >.gitignore
    echo 1 >a && commit one
    git init -q inner && echo x >inner/x
    echo SECRET=1 >.env
    mkdir build && echo cached >build/cache && echo other >build/other
    printf '/build/cache\n' >.bangerinclude
    git add .bangerinclude
)

# Files that a filter makes, as git-lfs does.
(
    new filtered
    git config filter.upper.clean 'tr a-z A-Z'
    git config filter.upper.smudge 'tr A-Z a-z'
    printf '*.up filter=upper\n' >.gitattributes
    echo content >a.up
    echo plain >plain
    commit one
    echo edited >>plain
)

# Pointers of git-lfs, where nobody has it.
(
    new pointers
    printf '*.bin filter=lfs diff=lfs merge=lfs -text\n' >.gitattributes
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 7\n' 7 >a.bin
    commit one
)

(
    new shallow-source
    for n in 1 2 3; do echo $n >a && commit "$n"; done
    git clone -q --depth 1 "file://$PWD" ../shallow
    cd ../shallow
    git config user.name P && git config user.email p@example.org
    echo 4 >b && git add b
)

(
    new large
    head -c 209715200 /dev/urandom >large.bin
    commit one
)

(
    new with-submodule
    echo 1 >a && commit one
    git -c protocol.file.allow=always submodule --quiet add "file://$PWD/../shallow-source" mod
    git commit -q -m 'with a submodule'
)
