# What the examples of help and pages speak of, made in the home of a scenario: programs, repositories, files.
set -eu
[ "$PWD" = "$HOME" ]
find . -mindepth 1 -delete
git config --global user.name Me
git config --global user.email me@example.org
git config --global init.defaultBranch main
mkdir -p .local/bin .config ../srv here app

program() {
    cat >".local/bin/$1"
    chmod 755 ".local/bin/$1"
}
# Root needs nothing from it.
program sudo <<'END'
#!/bin/sh
exec "$@"
END
program some-program <<'END'
#!/bin/sh
printf 'b\na\n'
END
# `docker save` of an image with nothing but a busybox in it.
program docker <<'END'
#!/bin/sh
exec cat /root/saved.tar
END

# committed FOLDER: all of it, as one commit.
committed() {
    git -C "$1" init -q
    git -C "$1" add .
    git -C "$1" commit -q -m 'a beginning'
}
mkdir repo hello
printf 'test:\n\t@grep -q moon greeting || grep -q world greeting\n\nworld:\n\t@echo one; echo two\n' >repo/Makefile
cp repo/Makefile app/Makefile
echo 'hello, world' >repo/greeting
cp repo/greeting app/greeting
cp repo/greeting hello/greeting
cat >repo/fix-everything <<'END'
#!/bin/sh
sed -i s/world/moon/ greeting
END
cat >repo/publish <<'END'
#!/bin/sh
echo "$T"
END
cp repo/publish repo/release.sh
cat >hello/test <<'END'
#!/bin/sh
grep -q hello greeting && echo ok
END
chmod 755 repo/fix-everything repo/publish repo/release.sh hello/test
echo .env >repo/.gitignore
committed repo
committed hello
echo SECRET=1 >repo/.env
echo later >hello/notes
echo here >here/file
echo a-result >app/result

busybox=/bin/busybox
[ -x "$busybox" ] || busybox=/usr/bin/busybox
mkdir -p image/bin
cp "$busybox" image/bin/busybox
ln -s busybox image/bin/sh
ln -s busybox image/bin/echo
tar -C image -cf layer.tar bin
digest=$(sha256sum layer.tar | cut -d ' ' -f 1)
printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" "$digest" >config.json
printf '[{"Config":"config.json","RepoTags":["my/image:latest"],"Layers":["layer.tar"]}]' >manifest.json
tar -cf saved.tar manifest.json config.json layer.tar
skopeo --insecure-policy copy -q docker-archive:saved.tar oci-archive:image.tar:latest
rm -r image layer.tar config.json manifest.json
