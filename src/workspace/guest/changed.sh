# changed.sh FOLDER: what is different from what was brought in, NUL behind each; nothing when nothing is.
prepared=$(g rev-parse --verify --quiet refs/banger/prepared || empty)
g diff-tree -r -z --name-only "$prepared" "$tree" >"$scratch/names"
head -c 4000 "$scratch/names"
head=$(g rev-parse --verify --quiet HEAD || echo -)
if [ "$head" != "$(g rev-parse --verify --quiet refs/banger/base || echo -)" ]; then
    printf 'commits of its own\0'
fi
