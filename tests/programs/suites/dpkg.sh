# A small system that dpkg unpacks from its packages: the files are those of the packages.
. /suite/steps.sh
place=/share/dpkg
mkdir -p $place/var/lib/dpkg/info $place/var/lib/dpkg/updates $place/var/lib/dpkg/triggers
: > $place/var/lib/dpkg/status
dpkg="dpkg --root=$place --force-depends --force-bad-path --force-script-chrootless"

# Those whose scripts would change the system that dpkg runs in are left out.
packages=
for package in /share/debs/*.deb; do
    dpkg-deb --ctrl-tarfile "$package" | tar t | grep -q '^./preinst$' || packages="$packages $package"
done
names=$(for package in $packages; do dpkg-deb --field $package Package; done)

unpack() {
    $dpkg --unpack $packages && return
    # The last line is not the one that says it.
    grep error $log | head -n 1
    return 1
}

# What dpkg says of contents. Files of configuration have another name until the packages
# are configured.
wrong() { $dpkg --verify 2>&1 | grep -v '^missing  *c /'; }

# What differs between a package and what is there, in owners, modes, times and links, too.
differs() {
    dpkg-deb --ctrl-tarfile "$1" | tar x -C /tmp -O ./conffiles 2> /dev/null | sed 's,^,.,' > /tmp/conffiles
    # Packages share directories, of which the last one's time is left.
    dpkg-deb --fsys-tarfile "$1" | tar --compare -C $place --exclude-from=/tmp/conffiles 2>&1 |
        grep -v '^[^:]*/: Mod time differs$'
    while read -r file; do
        dpkg-deb --fsys-tarfile "$1" | tar x -O "$file" | cmp - "$place/$file.dpkg-new" 2>&1
    done < /tmp/conffiles
}

verify() { silent wrong; }

compare() {
    for package in $packages; do
        silent differs "$package" || return 1
    done
}

# Once more over what is there, which keeps the files and replaces them one by one.
again() { unpack && verify; }

for name in unpack verify compare again; do
    step $name $name
done
echo "# $(echo $names | wc -w) packages, $(find $place | wc -l) files"
rm -rf $place
echo end
