# changed.sh FOLDER HEAD: what is different from what was brought in, NUL behind each; nothing when nothing is.
prepared=$(g rev-parse --verify --quiet refs/banger/prepared || empty)
g diff-tree -r -z --name-only "$prepared" "$tree" >"$scratch/names"
head -c 4000 "$scratch/names"
head=$(g rev-parse --verify --quiet HEAD || echo -)
if [ "$head" != "$(g rev-parse --verify --quiet refs/banger/base || echo -)" ]; then
    printf 'commits of its own\0'
fi
# A branch of the guest's own that has the name of the one that is to come.
if [ -n "$2" ] && other=$(g rev-parse --verify --quiet "$2") &&
    [ "$other" != "$(g rev-parse --verify --quiet refs/banger/base || echo -)" ]; then
    printf 'branch %s\0' "${2#refs/heads/}"
fi
