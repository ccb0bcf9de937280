/* Runs SQL statements with SQLite's single-file library, which is not part of this repository:
 * CFLAGS=-I/path/to/sqlite LIBS=-lm python -m tests.record.gain tests/record/programs/sql.c -- ROWS */
#define SQLITE_THREADSAFE 0
#define SQLITE_OMIT_LOAD_EXTENSION
#include "sqlite3.c"

static int print(void *unused, int columns, char **values, char **names) {
    for (int i = 0; i < columns; i++)
        printf("%s%c", values[i] ? values[i] : "null", i + 1 < columns ? '|' : '\n');
    return 0;
}

int main(int argc, char **argv) {
    char text[2048], *error = NULL;
    sqlite3 *db;
    snprintf(text, sizeof text,
        "create table a(id integer primary key, k integer, name text, price real);"
        "create table b(k integer, word text);"
        "begin;"
        "with recursive n(x) as (values(1) union all select x + 1 from n where x < %1$d)"
        " insert into a select x, x * 7919 %% 1009, printf('name%%d', x * 31 %% 977), x * 0.37 from n;"
        "with recursive n(x) as (values(1) union all select x + 1 from n where x < 1009)"
        " insert into b select x, 'word' || (x * 13 %% 101) from n;"
        "commit;"
        "create index ak on a(k); create index bw on b(word);"
        "select word, count(*), round(sum(price), 2) from a join b using (k)"
        " group by word order by 3 desc, 1 limit 9;"
        "select count(*) from a where name like '%%e9%%' or price between 100 and 200;"
        "update a set price = price * 1.1 where k %% 3 = 0;"
        "delete from a where id %% 11 = 5;"
        "select count(distinct name), round(avg(price), 3), max(substr(name, 3) || k) from a;"
        "select length(group_concat(name)) from (select name from a order by price desc, name);",
        argc > 1 ? atoi(argv[1]) : 1000);
    if (sqlite3_open(":memory:", &db) || sqlite3_exec(db, text, print, NULL, &error)) {
        fprintf(stderr, "%s\n", error ? error : "no memory");
        return 1;
    }
    return sqlite3_close(db);
}
