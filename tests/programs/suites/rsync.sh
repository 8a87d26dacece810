# Trees that rsync copies onto the mount, on it, and from it.
. /suite/steps.sh
place=/share/rsync
mkdir -p $place /tmp/rsync
source=/usr/share/nodejs/npm

# What differs between two trees, in content, owners, modes, times and links.
same() { silent rsync -aHc --delete --dry-run --itemize-changes "$@"; }

onto() { rsync -aH $source/ $place/a/ && same $source/ $place/a/; }

change() {
    mkdir /tmp/rsync/b && cp -a $source/. /tmp/rsync/b/ && cd /tmp/rsync/b || return 1
    find . -name '*.json' | while read -r file; do echo changed >> "$file"; done
    find . -name '*.md' -delete
    ln -s package.json link
    ln "$(find . -name package.json | head -n 1)" second
    rsync -aH --delete /tmp/rsync/b/ $place/a/ && same /tmp/rsync/b/ $place/a/
}

in_place() { rsync -aH --inplace --no-whole-file --delete $source/ $place/a/ && same $source/ $place/a/; }
links() {
    rsync -aH --link-dest=$place/a $place/a/ $place/c/ && same $place/a/ $place/c/ &&
        [ "$(find $place/c -type f -links 1 | wc -l)" = 0 ]
}
back() { rsync -aH --delete $place/c/ /tmp/rsync/b/ && same $source/ /tmp/rsync/b/; }

for name in onto change in_place links back; do
    step $name $name
done
echo "# $(find $place | wc -l) files"
rm -rf $place /tmp/rsync
echo end
