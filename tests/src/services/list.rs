//! The services.

use super::Client;

/// A service as the workload of an image.
#[derive(Debug)]
pub struct Service {
    /// Its name, and that of its image.
    pub name: &'static str,
    /// Guest memory.
    pub memory_mib: usize,
    /// Where it listens.
    pub port: u16,
    /// Paths and contents of files it has beside its packages.
    pub files: &'static [(&'static str, &'static str)],
    /// What makes `/data` before the image is made.
    pub preparation: Option<&'static str>,
    /// The workload.
    pub command: &'static [&'static str],
    /// What ends once it serves, of one that listens before it does. It runs before the
    /// capture, so that copies answer at once.
    pub ready: Option<&'static str>,
    /// A program that everybody uses with it.
    pub client: Client,
}

/// Users that the packages' scripts would have made.
const USERS: (&str, &str) = (
    "/etc/passwd",
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n\
     postgres:x:70:70::/data:/bin/sh\nmysql:x:71:71::/data:/bin/sh\n\
     nobody:x:65534:65534:nobody:/:/bin/false\n",
);
const GROUPS: (&str, &str) = (
    "/etc/group",
    "root:x:0:\nwww-data:x:33:\npostgres:x:70:\nmysql:x:71:\nnogroup:x:65534:\n",
);

const NGINX: (&str, &str) = (
    "/etc/nginx.conf",
    "daemon off; user www-data; worker_processes 2; error_log stderr; pid /run/nginx.pid;\n\
     events {}\n\
     http { access_log off; server { listen 80; location / { return 200 \"served\\n\"; } } }\n",
);

const APACHE: (&str, &str) = (
    "/etc/httpd.conf",
    "ServerRoot /usr/lib/apache2\nServerName guest\nListen 80\nPidFile /run/httpd.pid\n\
     LoadModule mpm_event_module modules/mod_mpm_event.so\n\
     LoadModule authz_core_module modules/mod_authz_core.so\n\
     LoadModule dir_module modules/mod_dir.so\n\
     User www-data\nGroup www-data\nErrorLog /dev/stderr\nDocumentRoot /srv\n\
     <Directory /srv>\nRequire all granted\n</Directory>\n",
);

const JAVA: (&str, &str) = (
    "/srv/Server.java",
    "import com.sun.net.httpserver.HttpServer;\n\
     import java.net.InetSocketAddress;\n\
     public class Server {\n\
       public static void main(String[] words) throws Exception {\n\
         var server = HttpServer.create(new InetSocketAddress(8080), 0);\n\
         server.createContext(\"/\", exchange -> {\n\
           var text = \"served\\n\".getBytes();\n\
           exchange.sendResponseHeaders(200, text.length);\n\
           exchange.getResponseBody().write(text);\n\
           exchange.close();\n\
         });\n\
         server.start();\n\
       }\n\
     }\n",
);

const NODE: &str = "require('http').createServer((_, to) => to.end('served\\n')).listen(3000)";

/// Gets a page from a server of HTTP.
const CURL: Client = Client::Program {
    argv: &["curl", "-sS", "--max-time", "100", "http://127.0.0.1:PORT/"],
    answer: "served",
};

/// The same by hand.
pub const PAGE: Client = Client::Bytes {
    question: "GET / HTTP/1.0\r\nHost: guest\r\n\r\n",
    answer: "served",
};

/// All of them.
pub const SERVICES: &[Service] = &[
    Service {
        name: "nginx",
        memory_mib: 256,
        port: 80,
        files: &[NGINX],
        preparation: None,
        command: &[
            "sh",
            "-c",
            "mkdir -p /run /var/log/nginx /var/lib/nginx && exec nginx -c /etc/nginx.conf",
        ],
        ready: None,
        client: CURL,
    },
    Service {
        name: "redis",
        memory_mib: 256,
        port: 6379,
        files: &[],
        preparation: None,
        command: &["redis-server", "--save", "", "--protected-mode", "no"],
        ready: None,
        client: Client::Program {
            argv: &["redis-cli", "-p", "PORT", "incrby", "counter", "42"],
            answer: "42",
        },
    },
    Service {
        name: "memcached",
        memory_mib: 256,
        port: 11_211,
        files: &[USERS, GROUPS],
        preparation: None,
        command: &["memcached", "-u", "nobody", "-l", "0.0.0.0"],
        ready: None,
        client: Client::Bytes {
            question: "set key 0 0 5\r\nvalue\r\nget key\r\n",
            answer: "VALUE key 0 5\r\nvalue\r\nEND",
        },
    },
    Service {
        name: "postgresql",
        memory_mib: 512,
        port: 5432,
        files: &[USERS, GROUPS],
        preparation: Some(
            "mkdir /data && chown 70:70 /data && setpriv --reuid=70 --regid=70 --clear-groups \
             /usr/lib/postgresql/15/bin/initdb --no-sync -A trust -U postgres -D /data/db",
        ),
        command: &[
            "sh",
            "-c",
            "exec setpriv --reuid=70 --regid=70 --clear-groups \
             /usr/lib/postgresql/15/bin/postgres -D /data/db -k /tmp -h 127.0.0.1",
        ],
        ready: Some(
            "until /usr/lib/postgresql/15/bin/pg_isready -q -h 127.0.0.1; do sleep 0.1; done",
        ),
        client: Client::Program {
            argv: &[
                "psql",
                "-h",
                "127.0.0.1",
                "-p",
                "PORT",
                "-U",
                "postgres",
                "-Atc",
                "select 'is ' || 6 * 7",
            ],
            answer: "is 42",
        },
    },
    Service {
        name: "apache2",
        memory_mib: 256,
        port: 80,
        files: &[USERS, GROUPS, APACHE, ("/srv/index.html", "served\n")],
        preparation: None,
        command: &[
            "sh",
            "-c",
            "mkdir -p /run; exec apache2 -f /etc/httpd.conf -DFOREGROUND",
        ],
        ready: None,
        client: CURL,
    },
    Service {
        name: "mariadb",
        memory_mib: 768,
        port: 3306,
        files: &[USERS, GROUPS],
        preparation: Some(
            "mkdir /data && mariadb-install-db --user=root --datadir=/data/db \
             --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve \
             --innodb-log-file-size=8M",
        ),
        command: &[
            "mariadbd",
            "--user=root",
            "--datadir=/data/db",
            "--socket=/tmp/socket",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-use-native-aio=0",
        ],
        ready: None,
        client: Client::Program {
            argv: &[
                "mariadb",
                "-h",
                "127.0.0.1",
                "-P",
                "PORT",
                "-u",
                "root",
                "-Ne",
                "select concat('is ', 6 * 7)",
            ],
            answer: "is 42",
        },
    },
    Service {
        name: "python3",
        memory_mib: 256,
        port: 8000,
        files: &[("/srv/index.html", "served\n")],
        preparation: None,
        command: &[
            "python3",
            "-m",
            "http.server",
            "--directory",
            "/srv",
            "8000",
        ],
        ready: None,
        client: CURL,
    },
    Service {
        name: "nodejs",
        memory_mib: 512,
        port: 3000,
        files: &[],
        preparation: None,
        command: &["node", "-e", NODE],
        ready: None,
        client: CURL,
    },
    Service {
        name: "openjdk",
        memory_mib: 1024,
        port: 8080,
        files: &[JAVA],
        preparation: None,
        command: &[
            "/usr/lib/jvm/java-17-openjdk-arm64/bin/java",
            "-Xmx256m",
            "/srv/Server.java",
        ],
        ready: None,
        client: CURL,
    },
];
