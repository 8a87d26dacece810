/* PID 1 of the peer in the boot bench: says that init is reached, and stays. */
#include <unistd.h>

int main(void)
{
    static const char text[] = "@@init\n";
    if (write(1, text, sizeof text - 1) < 0)
        return 1;
    for (;;)
        pause();
}
