# receive.sh FOLDER NAME: takes the pack on standard input in. git sees it once its index is there.
folder=$1/.git/objects/pack
mkdir -p "$folder"
cat >"$folder/tmp_$2"
mv "$folder/tmp_$2" "$folder/$2.pack"
