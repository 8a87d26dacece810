# A small system that dpkg unpacks from its packages: the files are those of the packages.
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

if $dpkg --unpack $packages > /tmp/dpkg.log 2>&1; then
    echo "passed unpack"
else
    echo "failed unpack: $(grep error /tmp/dpkg.log | head -n 1)"
fi

# Files of configuration have another name until the packages are configured.
verified() { $dpkg --verify 2>&1 | grep -v '^missing  *c /' | head -n 1; }

# dpkg compares contents, and tar owners, modes, times and links as well.
found=$(verified)
if [ -z "$found" ]; then echo "passed verify"; else echo "failed verify: $found"; fi

# What differs between a package and what is there.
differs() {
    dpkg-deb --ctrl-tarfile "$1" | tar x -C /tmp -O ./conffiles 2> /dev/null | sed 's,^,.,' > /tmp/conffiles
    # Packages share directories, of which the last one's time is left.
    dpkg-deb --fsys-tarfile "$1" | tar --compare -C $place --exclude-from=/tmp/conffiles 2>&1 |
        grep -v '^[^:]*/: Mod time differs$'
    while read -r file; do
        dpkg-deb --fsys-tarfile "$1" | tar x -O "$file" | cmp - "$place/$file.dpkg-new" 2>&1
    done < /tmp/conffiles
}

found=
for package in $packages; do
    [ -n "$found" ] || found=$(differs "$package" | head -n 1)
done
if [ -z "$found" ]; then echo "passed compare"; else echo "failed compare: $found"; fi

# Once more over what is there, which keeps the files and replaces them one by one.
if $dpkg --unpack $packages > /tmp/dpkg.log 2>&1; then
    found=$(verified)
else
    found=$(grep error /tmp/dpkg.log | head -n 1)
fi
if [ -z "$found" ]; then echo "passed again"; else echo "failed again: $found"; fi
echo "# $(echo $names | wc -w) packages, $(find $place | wc -l) files"
rm -rf $place
echo end
