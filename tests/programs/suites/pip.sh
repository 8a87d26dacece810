# Wheels of Debian that pip installs on the mount: files are those that the wheels list.
place=/share/pip
pip="pip --disable-pip-version-check --no-cache-dir --quiet"

if $pip install --no-index --find-links /usr/share/python-wheels --target $place pip setuptools \
    > /tmp/pip.log 2>&1; then
    echo "passed install"
else
    echo "failed install: $(tail -n 1 /tmp/pip.log)"
fi
if python3 - > /tmp/pip.log 2>&1 <<'END'; then
import base64, csv, glob, hashlib
count = 0
for record in glob.glob("/share/pip/*.dist-info/RECORD"):
    for name, digest, size in csv.reader(open(record)):
        if digest and not name.startswith(".."):
            content = open(f"/share/pip/{name}", "rb").read()
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            assert (f"sha256={found.decode()}", str(len(content))) == (digest, size), name
            count += 1
assert count > 500, count
END
    echo "passed record"
else
    echo "failed record: $(tail -n 1 /tmp/pip.log)"
fi
if said=$(PYTHONPATH=$place python3 -m pip --version 2>&1) && [ "${said#*$place}" != "$said" ]; then
    echo "passed run"
else
    echo "failed run: $said"
fi
rm -rf $place
echo end
