// A pipeline to go with nextflow.config: the first task compiles into the cache, and the others load from there.
// To fill in: my_script.py, the program.

process squares {
    input:
    path program
    val number

    output:
    path "squares-${number}.txt"

    script:
    """
    python3 ${program} ${number} > squares-${number}.txt
    """
}

workflow {
    squares(file("${launchDir}/my_script.py"), channel.of(0, 1))
}
